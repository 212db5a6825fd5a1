"""The tables ``[moves.NAME]`` of the TOML file, as docs/configuration.md describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from realize.config.checks import (
    as_backup_dir,
    as_boolean,
    as_duration,
    as_duration_or_zero,
    as_path,
    as_preserve,
    as_rate_text,
    as_size,
    as_string,
    as_texts,
    choice,
    unexpected,
    word_of,
)
from realize.config.filters import as_filters
from realize.config.moves import MoveConfig
from realize.config.tables import table_of
from realize.values import Compress, OnConflict, Order

_CONFLICT_WORDS: Final = tuple(each.name.lower() for each in OnConflict)


def move_of(resolve: Callable[[str], str]) -> Callable[[object], MoveConfig]:
    """The converter of the table of a standing move; ``resolve`` makes its paths absolute."""

    def location(value: object) -> str:
        text = as_path(value)
        return text if ":" in text.partition("/")[0] else resolve(text)

    def locations(value: object) -> tuple[str, ...]:
        return tuple(location(each) for each in as_texts([value] if isinstance(value, str) else value))

    return table_of(
        MoveConfig,
        sources=locations,
        destination=location,
        when=as_string,
        settle_s=as_duration_or_zero,
        jitter_s=as_duration_or_zero,
        throttle=as_rate_text,
        throttle_up=as_rate_text,
        throttle_down=as_rate_text,
        max_duration_s=as_duration,
        grace_s=as_duration_or_zero,
        include=as_texts,
        exclude=as_texts,
        filters=lambda value: as_filters(value, resolve),
        min_size_bytes=as_size,
        max_size_bytes=as_size,
        one_file_system=as_boolean,
        max_transfer_bytes=as_size,
        order=word_of(Order),
        on_conflict=lambda value: OnConflict[choice(*_CONFLICT_WORDS)(value).upper()],
        backup_dir=as_backup_dir,
        preserve=as_preserve,
        numeric_ids=as_boolean,
        best_effort=as_boolean,
        links=as_boolean,
        compress=word_of(Compress),
        jobs=_whole_number,
        prune_age_s=as_duration_or_zero,
        trust_source=as_boolean,
        manifest=lambda value: resolve(as_path(value)),
        after=as_texts,
        after_timeout_s=as_duration,
    )


def _whole_number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise unexpected("a number", value)
    return value
