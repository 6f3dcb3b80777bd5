"""``bdnet-deploy doctor``: what this installation can do, and what to install for the rest."""

from __future__ import annotations

from bdnet_deploy.cli import common


@common.command("doctor")
@common.report_options
def command(output: common.Output) -> None:
    """Check this installation: packages, compilers, emulators.

    Ends with 1 when the core itself is broken, with 0 when only optional parts are missing.
    """
    from bdnet_deploy import doctor
    from bdnet_deploy.errors import BdnetError

    report = doctor.examine()
    output.show(report)
    broken = [row for row in report.table("checks").rows if row["status"] == doctor.BROKEN]
    if broken:
        raise BdnetError(
            f"the installation is broken: {', '.join(str(row['check']) for row in broken)}",
            fix=str(broken[0]["fix"]),
        )
