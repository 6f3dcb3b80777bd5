"""Results as data, and their views.

Every command and API call that measures or compares returns a :class:`Report`. Text, JSON and HTML are views
of it (:mod:`~bdnet_deploy.report.text`, :mod:`~bdnet_deploy.report.json_view`,
:mod:`~bdnet_deploy.report.html`), so that they cannot disagree.
"""

from __future__ import annotations

from bdnet_deploy.report.tables import Column, Report, Table, Value

__all__ = ["Column", "Report", "Table", "Value"]
