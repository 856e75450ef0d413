"""Where streams come from. Importing this registers every built-in source."""

from metacl.continual.streams.arrays import permuted, rotated
from metacl.continual.streams.base import STREAMS, StreamSource
from metacl.continual.streams.files import FileStream
from metacl.continual.streams.labelled import ClassStream, DomainStream
from metacl.continual.streams.text_domains import TextDomains

__all__ = ["STREAMS", "ClassStream", "DomainStream", "FileStream", "StreamSource", "TextDomains", "permuted", "rotated"]
