"""`msjax doctor`: what this machine has, and whether it computes what others compute."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from msjax.cli.output import OutputFile


@dataclass(frozen=True)
class Doctor:
    """Show devices, versions and extras, and check a small simulation and a small decode.

    The exit status is 1 if a result is not the one that other machines have.

    Example: msjax doctor
    """

    json: OutputFile | None = None
    """Also write what was found to this file, as JSON."""

    def run(self) -> int:
        """Prints what was found; returns the exit status."""
        from msjax._io import available_memory
        from msjax.cli.output import keep_compiled, write_json
        from msjax.verify.machine import (
            check_decoder,
            check_simulator,
            devices,
            extras,
            packages,
        )

        keep_compiled()
        versions, (found, doubts), installed = packages(), devices(), extras()
        free = available_memory()
        checks = [check_simulator(), check_decoder()]
        rows = [
            ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
            ("system", platform.platform()),
            ("devices", ", ".join(found)),
        ]
        if free is not None:
            rows.append(("free memory", f"{free / 2**30:.1f} GiB on the host"))
        missing = [name for name, there in installed.items() if not there]
        rows.append(("extras", ", ".join(name for name in installed if name not in missing)))
        if missing:
            rows.append(("not there", f"{', '.join(missing)}: `pip install 'msjax[NAME]'`"))
        words = {True: "ok", False: "WRONG", None: "not checked"}
        rows += [(one.name, f"{words[one.passed]}: {one.says}") for one in checks]
        rows += [("doubt", doubt) for doubt in doubts]
        for label, says in rows:
            print(f"{label:<13}{says}")
        if self.json is not None:
            result = {
                "versions": versions,
                "system": platform.platform(),
                "devices": found,
                "free_memory_bytes": free,
                "extras": installed,
                "checks": {one.name: {"passed": one.passed, "says": one.says} for one in checks},
                "doubts": doubts,
            }
            write_json(self.json, result)
        return int(any(one.passed is False for one in checks))
