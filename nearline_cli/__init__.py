"""The `nearline` command: it composes the services and holds no rule of the domain."""
