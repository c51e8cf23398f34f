"""The querier's settings, a part of topics.settings."""

from __future__ import annotations

from pathlib import Path

from topics.section import KIB, MIB, Section, setting


class QuerierSettings(Section):
    """HTTP API, catalog, engine."""

    host: str = setting("127.0.0.1", "Address the API binds to")
    http_port: int = setting(3200, "Tempo-compatible HTTP API and pages", ge=0, le=65535)
    grpc_port: int = setting(
        9095, "Tempo's gRPC API, which http_port answers as well; 0: any free port", ge=0, le=65535
    )
    grpc_requests_max: int = setting(256, "Requests over gRPC at a time; beyond, RESOURCE_EXHAUSTED", ge=1)
    grpc_message_bytes_max: int = setting(2 * MIB, "Larger messages of an answer are split where they can be", ge=KIB)
    grpc_every_s: float = setting(0.5, "While a query runs, what is new is told so often", gt=0, le=60)
    grpc_idle_s: float = setting(300.0, "A gRPC connection without requests is closed after so long", gt=0)
    data_dir: Path = setting(Path(".spanstream/querier"), "Catalog; rebuilt from the buckets when empty")
    memory_bytes_max: int = setting(
        256 * MIB, "Memory of the query engine, its cache of chunks included; beyond, it spills", ge=64 * MIB
    )
    traces_memory_bytes_max: int = setting(
        64 * MIB, "Memory of the engine for traces by ID, its cache of chunks included", ge=16 * MIB
    )
    short_memory_bytes_max: int = setting(
        64 * MIB, "Memory of the engine for short questions, its cache of chunks included", ge=16 * MIB
    )
    resident_bytes_max: int = setting(
        640 * MIB,
        "Above so much memory in RAM what is free of it goes back to the system; below, it is used again",
        ge=0,
    )
    copies_bytes_max: int = setting(
        2048 * MIB, "Chunks copied to <data_dir>/chunks, the least recently used go first; 0: none", ge=0
    )
    threads: int = setting(0, "Threads of the query engine; 0: one a core", ge=0, le=256)
    executor: str = setting(
        "threads",
        "Where stored chunks are looked through: threads of this process, or tasks of a Dask cluster, dask://host:port",
        pattern=r"^(threads|dask://[^/\s]+:[0-9]+)$",
    )
    executor_batch_spans: int = setting(500_000, "Spans of the chunks of one task; a larger chunk is alone", ge=1)
    executor_retries: int = setting(2, "A task that failed is tried again so often; what cannot succeed is not", ge=0)
    executor_wait_s: float = setting(
        20.0, "Longest wait for a task's answer; beyond, this process looks through its chunks", gt=0
    )
    queries_max: int = setting(
        8, "Queries at a time, traces by ID and SQL not counted; further ones wait, the tenants in turn", ge=1
    )
    short_queries_max: int = setting(8, "Short questions at a time, in places and threads of their own", ge=1)
    short_chunk_bytes_max: int = setting(
        32 * MIB, "A question that reads more bytes of chunks is not short; 0: none that reads a chunk is", ge=0
    )
    traces_max: int = setting(8, "Traces by ID at a time, in places and threads of their own", ge=1)
    tenant_queries_max: int = setting(4, "Queries, and traces by ID, of one tenant at a time; further ones wait", ge=1)
    tenant_waiting_max: int = setting(64, "Queries of one tenant that wait; further ones get 429", ge=0)
    waiting_max: int = setting(512, "Queries of all tenants that wait; further ones get 503", ge=0)
    niceness: int = setting(
        15, "How far threads of queries stand back where the CPU is scarce, behind traces by ID; 0: not", ge=0, le=19
    )
    short_niceness: int = setting(5, "The same of those of short questions", ge=0, le=19)
    query_timeout_s: float = setting(60.0, "A query is ended after so long with 504", gt=0)
    query_chunk_bytes_max: int = setting(
        65_536 * MIB, "Bytes of the chunks that a search, metrics or tag query reads; beyond, 413", ge=KIB
    )
    live_bytes_max: int = setting(
        128 * MIB,
        "Copies of live segments kept, compressed, and half as much unpacked; beyond, the oldest are asked for again",
        ge=MIB,
    )
    store_timeout_s: float = setting(
        5.0, "Longest wait for the store to answer, or to send a range of a chunk; until it answers: PARTIAL", gt=0
    )
    kafka_timeout_s: float = setting(
        5.0, "A Kafka that tells questions no ends or owners for so long counts as away until it does: PARTIAL", gt=0
    )
    live_timeout_s: float = setting(5.0, "Longest wait for a worker's answer", gt=0)
    live_wait_s: float = setting(
        0.4, "A search gives workers so long to take what Kafka has; then it reads the rest from there", ge=0, le=5
    )
    live_tail_every_s: float = setting(0.5, "A live tail is told what came so often", gt=0, le=60)
    live_tail_spans_max: int = setting(50, "Spans that it is told each time; others are counted", ge=1, le=1000)
    live_tails_max: int = setting(16, "Live tails at a time; beyond, 503", ge=1)
    tail_bytes_max: int = setting(256 * MIB, "Bytes read from Kafka where no owner is; beyond, PARTIAL", ge=MIB)
    tail_timeout_s: float = setting(10.0, "Longest time of reading the tail; beyond, PARTIAL", gt=0)
    receiver_urls: tuple[str, ...] = setting(
        (), "URLs of the receivers that /api/status/drops asks; empty: http://receiver.host:receiver.http_port"
    )
    canary_urls: tuple[str, ...] = setting(
        (), "URLs of canaries' metrics that /api/status/canary tells of, such as http://127.0.0.1:6070"
    )
    owners_refresh_s: float = setting(1.0, "How long the partitions' owners are remembered", ge=0)
    catalog_refresh_s: float = setting(10.0, "How often the manifests in the bucket are listed beside the topic", gt=0)
    trace_reach_s: float = setting(3600.0, "A trace is looked for so far around the asked range", ge=0)
    trace_bytes_max: int = setting(50 * MIB, "Largest answer to a trace by ID; beyond, v1: 422, v2: PARTIAL", ge=KIB)
    view_cache_bytes: int = setting(
        64 * MIB, "Traces that the page shows, kept for what is asked of their spans; a larger one is read again", ge=0
    )
    view_cache_s_max: float = setting(30.0, "They are kept so long, then read again", ge=0, le=3600)
    view_events_max: int = setting(20_000, "Events of a trace that the page lists, the first by time", ge=1)
    search_limit_default: int = setting(20, "Traces of a search without limit=", ge=1)
    search_limit_max: int = setting(262_144, "Largest limit=", ge=1)
    search_told_every_s: float = setting(
        0.2, "A search that answers in events tells so often what it has found so far", gt=0, le=60
    )
    search_range_h_max: float = setting(168.0, "Longest range of a search; beyond, 400", gt=0)
    metrics_range_h_max: float = setting(24.0, "Longest range of a metrics query; beyond, 400", gt=0)
    metrics_cells_max: int = setting(
        1_000_000,
        "Groups times intervals of a metrics query, or a 32nd of the values of quantiles; beyond, 413",
        ge=1000,
    )
    warm_up_s_max: float = setting(
        5.0, "Longest time a starting querier reads live rows and the newest chunks before it is ready", ge=0
    )
    warm_up_bytes_max: int = setting(
        512 * MIB, "Bytes of the newest chunks that it copies meanwhile; they count as copies_bytes_max does", ge=0
    )
    chunk_cache_bytes: int = setting(
        64 * MIB, "What chunks and live segments gave to questions, kept for those that are asked again", ge=0
    )
    series_max: int = setting(1000, "Most series of a metrics answer; beyond, PARTIAL. 0: no limit", ge=0)
    sql_memory_bytes_max: int = setting(256 * MIB, "Memory of one SQL statement; beyond, 413", ge=32 * MIB)
    sql_queries_max: int = setting(2, "SQL questions at a time; further ones wait", ge=1)
    sql_chunk_bytes_max: int = setting(16_384 * MIB, "Bytes of a statement's chunks; beyond, 413", ge=MIB)
    sql_json_rows_max: int = setting(10_000, "Rows of SQL as JSON; beyond, it says that it is cut", ge=1)
    sql_bytes_max: int = setting(1024 * MIB, "Bytes in Arrow of a SQL answer; a larger one breaks off", ge=MIB)
    explain_chunks_max: int = setting(1000, "Chunks that /api/explain names, the newest; all are counted", ge=1)
    mcp_answer_bytes_max: int = setting(
        64 * KIB, "Bytes of an answer of a tool for assistants; a longer list or text is cut, and says so", ge=KIB
    )
    tag_values_max: int = setting(10_000, "Most tag names or values of an answer without limit=", ge=1)
