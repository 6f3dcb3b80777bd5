"""Questions about a model, each answered by a :class:`~bdnet_deploy.report.Report`."""
