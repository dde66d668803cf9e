"""Pictures from addresses that strangers name: fetched from public hosts only, and not for long."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from urllib.parse import urljoin, urlsplit

import httpx

from lightning_mono.server.refusal import Refusal

SECONDS = 10.0
"""For a picture, redirects included."""
REDIRECTS = 3
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def public(address: Address) -> bool:
    """Whether an address is anyone's, not this machine's or its network's."""
    inner = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.is_global and not address.is_multicast and (inner is None or public(inner))


async def fetch(
    url: str, most_bytes: int, field: str, allowed: Callable[[Address], bool] = public
) -> bytes:
    """Fetches a picture.

    The host's name is looked up once, its addresses are checked, and the connection goes to one of
    those: a name that means another address a moment later gains nothing.

    Args:
        url: http or https.
        most_bytes: more are refused, whatever was announced.
        field: where the address stood in the request, for messages.
        allowed: which addresses may be asked.

    Raises:
        Refusal: the address may not be asked, or does not give a picture of that size in time.
    """
    try:
        async with asyncio.timeout(SECONDS):
            for _ in range(REDIRECTS + 1):
                content, url = await _get(url, most_bytes, field, allowed)
                if content is not None:
                    return content
    except TimeoutError as error:
        raise _refused(field, f"no picture within {SECONDS:g} seconds") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise _refused(field, "cannot be fetched") from error
    raise _refused(field, f"more than {REDIRECTS} redirects")


async def _get(
    url: str, most_bytes: int, field: str, allowed: Callable[[Address], bool]
) -> tuple[bytes | None, str]:
    """The content behind an address, or None and where else to look."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise _refused(field, "only plain http and https addresses are fetched")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    address = await _address(parts.hostname, port, field, allowed)
    at = httpx.URL(url).copy_with(host=str(address), fragment=None)
    async with (
        httpx.AsyncClient(trust_env=False, timeout=SECONDS) as client,
        client.stream(
            "GET",
            at,
            headers={"Host": parts.netloc, "Accept": "image/*", "Accept-Encoding": "identity"},
            extensions={"sni_hostname": parts.hostname},
        ) as response,
    ):
        if response.is_redirect:
            return None, urljoin(url, response.headers.get("location", ""))
        if response.status_code != 200:
            raise _refused(field, f"the host answered {response.status_code}")
        content = bytearray()
        async for chunk in response.aiter_raw():
            content += chunk
            if len(content) > most_bytes:
                raise _refused(field, f"more than {most_bytes} bytes", "image_too_large", 413)
        return bytes(content), url


async def _address(host: str, port: int, field: str, allowed: Callable[[Address], bool]) -> Address:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses or not all(map(allowed, addresses)):
        raise _refused(field, "its host is not a public one")
    return addresses[0]


def _refused(field: str, why: str, code: str = "invalid_image_url", status: int = 400) -> Refusal:
    return Refusal(f"{field}: {why}", param=field, code=code, status=status)
