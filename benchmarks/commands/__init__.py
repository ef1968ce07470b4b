"""One module per `nearline bench` command."""
