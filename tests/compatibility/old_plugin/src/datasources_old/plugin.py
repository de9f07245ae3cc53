"""The classes, and observers that take fewer arguments than there are."""
# mypy: ignore-errors

from datasources import hookimpl

SEEN = []


@hookimpl
def datasources_connectors():
    from datasources_old.cabinet import OldCabinet
    from datasources_old.shelf import OldShelf

    return [OldShelf, OldCabinet]


@hookimpl
def datasources_source_registered(config):
    SEEN.append(("registered", config.id))


@hookimpl
def datasources_source_unregistered(source_id):
    SEEN.append(("unregistered", source_id))


@hookimpl
def datasources_operation_started(operation):
    SEEN.append(("started", operation.name))


@hookimpl
def datasources_operation_finished(operation, error):
    SEEN.append(("finished", operation.name, type(error).__name__))


@hookimpl
def datasources_resolve_secret(scheme):
    return "from the old plugin" if scheme == "old" else None


@hookimpl
def datasources_open_store(url):
    return None


@hookimpl
def datasources_commands():
    SEEN.append(("commands",))
