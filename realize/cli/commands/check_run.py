"""Tries the way to a peer step by step, and shows what each step found."""

from __future__ import annotations

import json as json_format

import click

from realize.cli.credentials import credentials_of
from realize.cli.logs import logger_of
from realize.cli.options import Access, LogOptions
from realize.cli.runner import run
from realize.concurrency.reactor import IReactor
from realize.exit_codes import ExitCode
from realize.runs.check_findings import Finding, Result
from realize.runs.checking import Checking


def run_check(target: str, access: Access, *, json: bool, log: LogOptions) -> int:
    """Check ``target``, print the findings, and return the exit code."""

    def show(finding: Finding) -> None:
        click.echo(finding.as_json() if json else "\n".join(finding.lines()))

    async def main(reactor: IReactor) -> int:
        checking = Checking(reactor, show, logger_of)
        await checking.run(target, lambda: credentials_of(access))
        code = ExitCode.CHECK_FAILED if checking.count(Result.FAILED) else ExitCode.DONE
        if json:
            counts = {result.name.lower(): checking.count(result) for result in Result}
            click.echo(json_format.dumps({"event": "summary", **counts, "exit_code": code}))
        return code

    return run(main, log)
