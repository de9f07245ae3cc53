"""Split tables in files, for connectors whose files can be read at any place."""

from datasources.file_splits.connector import SplittableFiles as SplittableFiles
from datasources.file_splits.files import PinnedFile as PinnedFile, SplitFile as SplitFile
