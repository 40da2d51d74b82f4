"""Routes and templates are compiled once a process, not once for each of hundreds of applications: that is
most of what making one and opening its first page takes.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

from flask import Flask
from jinja2.bccache import Bucket, BytecodeCache
from werkzeug.routing import Rule


def share_compiled() -> None:
    _share_routes()
    _share_templates()


def _share_routes() -> None:
    compile_builder = Rule._compile_builder
    builders: dict[tuple[object, ...], Any] = {}

    def shared(rule: Rule, append_unknown: bool = True) -> Any:
        if rule.defaults:
            return compile_builder(rule, append_unknown)
        key = (*rule._trace, append_unknown)
        if key not in builders:
            builders[key] = compile_builder(rule, append_unknown)
        return builders[key]

    Rule._compile_builder = shared  # type: ignore[method-assign]


class _Templates(BytecodeCache):
    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        assert bucket.code is not None
        self._codes[bucket.key, bucket.checksum] = bucket.code


def _share_templates() -> None:
    create, templates = Flask.create_jinja_environment, _Templates()

    def shared(app: Flask) -> Any:
        environment = create(app)
        environment.bytecode_cache = templates
        return environment

    Flask.create_jinja_environment = shared  # type: ignore[method-assign]
