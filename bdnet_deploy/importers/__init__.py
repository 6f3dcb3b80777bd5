"""From models of other tools to the graph: one package per source, each importing its heavy packages itself."""
