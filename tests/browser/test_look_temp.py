import httpx
from playwright.sync_api import expect
from tests.browser.conftest import DESKTOP, PHONE
def test_look_at_them_all_now(page, stack):
    f, g = stack.shop.failed[0], stack.shop.good[-1]
    answer = httpx.get(f"{stack.url}/api/trace-view/{f}").json()
    span = answer["spanId"][answer["code"].index(2)]
    n = 0
    for name, path in {"system": "/system", "explore": "/", "after": "/compare?sel=after", "span": f"/trace/{f}?span={span}", "services": "/services", "live": "/live", "form": "/?form=1"}.items():
        for size in (DESKTOP, PHONE):
            n += 1
            page.emulate_media(color_scheme="dark" if n % 3 == 0 else "light")
            page.set_viewport_size(size)
            page.goto(path)
            expect(page.locator("main h1").first).to_be_attached()
            expect(page.locator(".loading")).to_have_count(0)
            page.wait_for_timeout(1500)
            page.screenshot(path=f"/tmp/look-{name}-{size['width']}.png")
