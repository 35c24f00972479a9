"""`make prove`: every model, with the rules as they are and with each fault put back; a line for each, and what a fault leads to."""

from __future__ import annotations

import argparse
import sys

from .cases import FAULTY, SOUND, Case
from .checker import Report


def main() -> int:
    parser = argparse.ArgumentParser(prog="make prove", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only what the test suite runs")
    parser.add_argument("--traces", action="store_true", help="print how each fault leads to what it leads to")
    options = parser.parse_args()
    wrong = []
    print(f"{'rules':<50} {'states':>10} {'steps':>11} {'seconds':>8}  found")
    for case in (*SOUND, *FAULTY):
        if options.quick and not case.quick:
            continue
        report = case.run()
        print(f"{case.name:<50} {report.states:>10,} {report.steps:>11,} {report.seconds:>8.1f}  {_verdict(case, report)}", flush=True)
        if bool(report.verdict) != bool(case.fault):
            wrong.append(case)
        if report.verdict and (options.traces or not case.fault):
            print("\n".join(f"    {line}" for line in report.trace))
    for case in wrong:
        print(f"WRONG: {case.name}: " + ("the fault is not found" if case.fault else "the rules as they are lead to this"))
    return bool(wrong)


def _verdict(case: Case, report: Report) -> str:
    if not report.verdict:
        return "nothing; all explored"
    return f"{report.verdict}, after {len(report.trace)} steps" + (f" [{case.fault}]" if case.fault else "")


sys.exit(main())
