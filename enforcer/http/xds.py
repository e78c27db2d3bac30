"""What Envoy is told, as documents: its bootstrap, listeners and routes. Pure.

One listener a rule set, at the loopback's addresses of both families; packets come to it with the
addresses that they had (`bpf/lib/detour.h`), and leave with the caller's. Routes of all listeners
lie in a few files: a subscription takes an instance of inotify, of which a node has 128. Which
routes are a connection's own says its filter state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from generators.http import LARGEST_PROGRAM, HttpRule, RuleSet

Json = Mapping[str, object]

SHARDS: Final = 8
"""Files that routes are spread over: a change costs what its own file holds."""
ADMIN, ACCESS_LOG = "admin.sock", "access.sock"
"""Sockets in Envoy's working directory."""
DENIED = "Access denied\r\n"
LEG_UP, EGRESS = 2, 16
"""Marks of connections that Envoy opens, as bpf/lib/verdict.h has them."""
HEAP_BYTES = 1 << 30
"""Past most of it no request is taken any more."""
PROGRAM = 4 * LARGEST_PROGRAM
"""Envoy's own bound for expressions: behind ours, as what it refuses holds up others' rules too."""
REQUEST_HEADERS_KB = 60
HEADERS_SECONDS, IDLE_SECONDS = 10, 300

_TYPE = "type.googleapis.com/"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_RULES, _LEG = "ringfence.rules", "ringfence.leg"
_CASE: Json = {
    "stateful_formatter": {
        "name": "preserve_case",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.http.header_formatters.preserve_case.v3."
            "PreserveCaseFormatterConfig"
        },
    }
}
_ROUTE: Json = {"cluster": "original", "timeout": "0s"}
_DENY: Json = {"status": 403, "body": {"inline_string": DENIED}}
LOG_FIELDS: Mapping[str, str] = {
    "t": "%START_TIME(%s.%6f)%",
    "set": f"%FILTER_STATE({_RULES}:PLAIN)%",
    "leg": f"%FILTER_STATE({_LEG}:PLAIN)%",
    "src": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "dst": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "host": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "ms": "%DURATION%",
    "route": "%ROUTE_NAME%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
}
"""Of a request in the access log; all are text, "-" where there is none."""


def bootstrap() -> Json:
    """What never changes while Envoy runs. Paths are below its working directory."""
    return {
        "node": {"id": "ringfence", "cluster": "ringfence"},
        "admin": {"address": {"pipe": {"path": f"own/{ADMIN}", "mode": 0o600}}},
        "dynamic_resources": {"lds_config": _file("xds/listeners.json")},
        "static_resources": {"clusters": [_original(), _log_reader()]},
        "layered_runtime": {
            "layers": [
                {
                    "name": "static",
                    "static_layer": {
                        "re2.max_program_size.error_level": PROGRAM,
                        "re2.max_program_size.warn_level": PROGRAM,
                    },
                }
            ]
        },
        "overload_manager": _overload(),
    }


def _overload() -> Json:
    monitor = "envoy.resource_monitors.fixed_heap"
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": monitor,
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.resource_monitors.fixed_heap.v3."
                    "FixedHeapConfig",
                    "max_heap_size_bytes": HEAP_BYTES,
                },
            }
        ],
        "actions": [
            {"name": f"envoy.overload_actions.{name}", "triggers": [_trigger(monitor, share)]}
            for name, share in (("shrink_heap", 0.8), ("stop_accepting_requests", 0.95))
        ],
    }


def _trigger(monitor: str, share: float) -> Json:
    return {"name": monitor, "threshold": {"value": share}}


def _file(path: str) -> Json:
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}


def _original() -> Json:
    most = dict.fromkeys(
        ("max_connections", "max_pending_requests", "max_requests", "max_retries"), 1 << 30
    )
    return {
        "name": "original",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [most]},
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": _TYPE + _HTTP_OPTIONS,
                "common_http_protocol_options": {"idle_timeout": f"{IDLE_SECONDS}s"},
                "use_downstream_protocol_config": {
                    "http_protocol_options": {"header_key_format": _CASE},
                    "http2_protocol_options": {},
                },
            }
        },
    }


def _log_reader() -> Json:
    endpoint = {"endpoint": {"address": {"pipe": {"path": ACCESS_LOG}}}}
    return {
        "name": "access_log",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "access_log",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def listeners(sets: Mapping[int, RuleSet], version: str) -> Json:
    """A listener for each rule set, by its port."""
    return {
        "version_info": version,
        "resources": [_listener(port, rule_set) for port, rule_set in sets.items()],
    }


def shard_of(port: int) -> int:
    """The file that holds the routes of a listener."""
    return port % SHARDS


def _listener(port: int, rule_set: RuleSet) -> Json:
    egress = rule_set.direction == "Egress"
    state = {_RULES: str(port), _LEG: "egress" if egress else "ingress"}
    return {
        "@type": f"{_TYPE}envoy.config.listener.v3.Listener",
        "name": str(port),
        "address": _socket("127.0.0.1", port),
        "additional_addresses": [{"address": _socket("::1", port)}],
        "transparent": True,
        # Kernels before 6.6 give no packet to a socket that shares its port.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": 1 << 16,
        "listener_filters": [
            _filter("listener.original_dst", "OriginalDst"),
            _filter("listener.original_src", "OriginalSrc", mark=LEG_UP | EGRESS * egress),
        ],
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.set_filter_state",
                        "typed_config": {
                            "@type": f"{_TYPE}envoy.extensions.filters.network."
                            "set_filter_state.v3.Config",
                            "on_new_connection": [
                                _said(key, value) for key, value in state.items()
                            ],
                        },
                    },
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": connection_manager(shard_of(port)),
                    },
                ]
            }
        ],
    }


def _socket(address: str, port: int) -> Json:
    return {"socket_address": {"address": address, "port_value": port}}


def _filter(name: str, kind: str, **options: object) -> Json:
    typed = f"{_TYPE}envoy.extensions.filters.{name}.v3.{kind}"
    return {"name": f"envoy.filters.{name}", "typed_config": {"@type": typed, **options}}


def _said(key: str, value: str) -> Json:
    return {
        "object_key": key,
        "factory_key": "envoy.string",
        "format_string": {"text_format_source": {"inline_string": value}},
    }


def connection_manager(shard: int) -> Json:
    """What is not clear to everybody who reads a request is refused; else nothing is changed."""
    return {
        "@type": f"{_TYPE}envoy.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "http",
        "codec_type": "AUTO",
        "rds": {
            "route_config_name": f"routes-{shard}",
            "config_source": _file(f"xds/routes-{shard}.json"),
        },
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "use_remote_address": False,
        "skip_xff_append": True,
        "generate_request_id": False,
        "preserve_external_request_id": True,
        "server_header_transformation": "PASS_THROUGH",
        "http_protocol_options": {"accept_http_10": True, "header_key_format": _CASE},
        "proxy_100_continue": True,
        "common_http_protocol_options": {
            "headers_with_underscores_action": "ALLOW",
            "idle_timeout": f"{IDLE_SECONDS}s",
        },
        "stream_idle_timeout": f"{IDLE_SECONDS}s",
        "request_headers_timeout": f"{HEADERS_SECONDS}s",
        "max_request_headers_kb": REQUEST_HEADERS_KB,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "local_reply_config": _local_replies(),
        "access_log": [_access_log()],
        "http_filters": [
            _filter("http.router", "Router", suppress_envoy_headers=True),
        ],
    }


def _local_replies() -> Json:
    """CONNECT has no path, so that no route can match it."""
    return {
        "mappers": [
            {
                "filter": {"response_flag_filter": {"flags": ["NR"]}},
                "status_code": 403,
                "body": {"inline_string": DENIED},
            }
        ]
    }


def _access_log() -> Json:
    return {
        "name": "envoy.access_loggers.fluentd",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.access_loggers.fluentd.v3.FluentdAccessLogConfig",
            "cluster": "access_log",
            "tag": "http",
            "stat_prefix": "http",
            "buffer_flush_interval": "0.2s",
            "record": dict(LOG_FIELDS),
        },
    }


def routes(shard: int, sets: Mapping[int, RuleSet], version: str) -> Json:
    """The routes of all listeners of one file."""
    chosen = {
        str(port): _routes([_allow(name, rule) for name, rule in rule_set.rules])
        for port, rule_set in sets.items()
        if shard_of(port) == shard
    }
    state = f"{_TYPE}envoy.extensions.matching.common_inputs.network.v3.FilterStateInput"
    host: dict[str, object] = {"name": "all", "domains": ["*"]}
    if chosen:
        host["matcher"] = {
            "matcher_tree": {
                "input": {
                    "name": "rules",
                    "typed_config": {"@type": state, "key": _RULES},
                },
                "exact_match_map": {"map": chosen},
            },
            "on_no_match": _routes([]),
        }
    else:
        host["routes"] = [_denied()]
    return {
        "version_info": version,
        "resources": [
            {
                "@type": f"{_TYPE}envoy.config.route.v3.RouteConfiguration",
                "name": f"routes-{shard}",
                "virtual_hosts": [host],
                "validate_clusters": False,
            }
        ],
    }


def _routes(allowed: Sequence[Json]) -> Json:
    return {
        "action": {
            "name": "routes",
            "typed_config": {
                "@type": f"{_TYPE}envoy.config.route.v3.RouteList",
                "routes": [*allowed, _denied()],
            },
        }
    }


def _denied() -> Json:
    return {"name": "denied", "match": {"prefix": ""}, "direct_response": _DENY}


def _allow(name: str, rule: HttpRule) -> Json:
    """The path with its query, method and host as headers: for the whole value, as Cilium asks."""
    asked = ((":path", rule.path), (":method", rule.method), (":authority", rule.host))
    headers: list[Json] = [
        {"name": header, "string_match": {"safe_regex": {"regex": regex}}}
        for header, regex in asked
        if regex
    ]
    for header in rule.headers:
        value: Json = (
            {"present_match": True}
            if header.value is None
            else {"string_match": {"exact": header.value}}
        )
        headers.append({"name": header.name, **value})
    return {"name": name, "match": {"prefix": "/", "headers": headers}, "route": _ROUTE}
