"""What ``verify`` compares: stored values, single layers, whole runs; in foreign runtimes and in ours."""
