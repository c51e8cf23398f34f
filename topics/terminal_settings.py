"""Settings of the commands that ask a querier, a part of topics.settings."""

from __future__ import annotations

from topics.section import KIB, MIB, Section, setting


class TerminalSettings(Section):
    """What the commands that ask a querier wait for, keep and show."""

    querier_timeout_s: float = setting(90.0, "Longest wait for the querier; beyond its own limit of time", gt=0)
    tail_every_s: float = setting(1.0, "tail asks so often", gt=0, le=60)
    tail_reach_s: int = setting(30, "tail asks so far back each time: spans may arrive that late", ge=1, le=3600)
    tail_traces_max: int = setting(200, "Traces that tail hears of each time; further ones are not told", ge=1)
    tail_seen_traces_max: int = setting(20_000, "Traces that tail remembers, so that each is shown once", ge=1)
    export_page_traces: int = setting(100, "export asks for so many traces at a time", ge=1)
    export_portion_bytes: int = setting(
        16 * MIB, "Spans that export holds in memory before it puts them down, as OTLP", ge=KIB
    )
    export_attribute_columns_max: int = setting(
        500, "Columns of attributes in a Parquet file of export; the rarest others go to map columns", ge=1
    )
    tui_every_s: float = setting(2.0, "tui asks so often while it follows", gt=0, le=3600)
    tui_traces_max: int = setting(100, "Traces in the list of tui", ge=1)
    tui_spans_max: int = setting(20_000, "Spans of a trace that tui shows, the first", ge=1)
    tui_value_chars_max: int = setting(4000, "Characters of a value that tui shows", ge=1)
    tui_file_bytes_max: int = setting(256 * MIB, "Largest file that tui --from reads", ge=KIB)
