"""Values of ours in the forms that messages want."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp


def timestamp(moment: datetime) -> Timestamp:
    """`moment`, which knows its time zone, as a message."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message
