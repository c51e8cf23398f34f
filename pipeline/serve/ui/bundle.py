"""The page's bundle, which `make ui` builds: served as it is, and told to ask nobody but this querier."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

DIST = Path(__file__).parent / "dist"
NOT_BUILT = "The interactive page is not built: `make ui` builds it, once. Until then there are these plain pages."
VIEWS = ("/", "/services", "/compare", "/live", "/system")
PLAIN = "/plain"  # the pages without script stand below it
# Styles of the plain pages stand in them; the interactive page has no inline style and no inline script
CONTENT_SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
UNCHANGING = "public, max-age=31536000, immutable"  # an asset is named by its content
ASKED_AGAIN = "no-cache"  # the page names the assets of now


def is_built(folder: Path = DIST) -> bool:
    """Is there a bundle?"""
    return (folder / "index.html").exists()


def view(request: Request, folder: Path = DIST) -> Response:
    """The page, which shows what the URL says; 304 where the browser has it."""
    response = FileResponse(
        folder / "index.html", media_type="text/html", headers=CONTENT_SECURITY | {"cache-control": ASKED_AGAIN}
    )
    response.set_stat_headers(os.stat(folder / "index.html"))
    known = request.headers.get("if-none-match")
    if known and known == response.headers["etag"]:
        return Response(status_code=304, headers=CONTENT_SECURITY | {"etag": known})
    return response


class Assets(StaticFiles):
    """Script and style."""

    def __init__(self, folder: Path = DIST) -> None:
        super().__init__(directory=folder / "assets", check_dir=False)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        """The file, to be kept by the browser."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        MutableHeaders(raw=response.raw_headers).update(CONTENT_SECURITY | {"cache-control": UNCHANGING})
        return response
