"""HTTP over mutually authenticated TLS, for DICOMweb: a thread for each request."""

from gateway.network.http.exchange import Answered, Exchange
from gateway.network.http.server import HttpListen, HttpsServer

__all__ = ["Answered", "Exchange", "HttpListen", "HttpsServer"]
