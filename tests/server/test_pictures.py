"""What strangers send as pictures: data URLs, uploads, and addresses to fetch from."""

from __future__ import annotations

import asyncio
import base64
import http.server
import io
import ipaddress
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lightning_mono.server import remote
from lightning_mono.server.files import Files
from lightning_mono.server.pictures import FORMATS, check, from_data_url
from lightning_mono.server.refusal import Refusal
from lightning_mono.server.settings import Limits

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")

LIMITS = Limits(image_bytes=2000, image_pixels=400)


def encoded(kind: str, width: int = 4, height: int = 3) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, kind)
    return file.getvalue()


DOT = encoded("png")


def url_of(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


# -- data URLs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_a_data_url_holds_its_picture(kind: str) -> None:
    data = encoded(kind)
    assert from_data_url(url_of(data, f"IMAGE/{kind};charset=x"), LIMITS, "field") == data


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("data:image/png,abc", "field: not a data:image"),
        ("data:;base64,abc", "field: no type is no image type"),
        (url_of(DOT, "text/plain"), "field: text/plain is no image type"),
        (url_of(DOT) + "!", "field: broken base64"),
        (url_of(DOT)[:-3], "field: "),
        (url_of(encoded("bmp")), "field: not a picture that can be read"),
        (url_of(b""), "field: not a picture that can be read"),
        (url_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n"), "field: not a picture"),
        (url_of(encoded("png", 21, 20)), "field: 21x20 is more than 400 pixels"),
    ],
)
def test_what_is_no_picture_is_refused(url: str, says: str) -> None:
    with pytest.raises(Refusal) as refused:
        from_data_url(url, LIMITS, "field")
    detail = refused.value.detail
    assert isinstance(detail, dict)
    assert detail["message"].startswith(says)
    assert detail["param"] == "field"


@given(st.integers(1900, 2200))
def test_bytes_count_as_they_are_decoded(size: int) -> None:
    data = DOT + bytes(size - len(DOT))  # what stands behind a picture is not looked at
    url = url_of(data)
    if size <= LIMITS.image_bytes:
        assert from_data_url(url, LIMITS, "field") == data
    else:
        with pytest.raises(Refusal, match="more than 2000 bytes") as refused:
            from_data_url(url, LIMITS, "field")
        assert refused.value.status_code == 413


@given(st.text(max_size=80), st.binary(max_size=80), st.sampled_from(FORMATS), st.integers(0, 60))
def test_no_url_and_no_bytes_do_more_than_be_refused(
    text: str, data: bytes, kind: str, cut: int
) -> None:
    broken = encoded(kind)[:cut] + data
    for url in (text, f"data:{text}", f"data:image/png;base64,{text}", url_of(broken)):
        with suppress(Refusal):
            from_data_url(url, LIMITS, "field")


# -- uploads -------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4)), max_size=20))
def test_uploads_stay_within_their_room_and_time(uploads: list[tuple[int, int]]) -> None:
    now = 0.0
    files = Files(100, 10, clock=lambda: now)
    kept: dict[str, tuple[int, float]] = {}
    for size, seconds in uploads:
        now += seconds
        kept = {id: entry for id, entry in kept.items() if now < entry[1]}
        room = 100 - sum(entry[0] for entry in kept.values())
        if size <= room:
            kept[files.add(bytes(size), "a", "vision").id] = (size, now + 10)
        else:
            with pytest.raises(Refusal, match="uploads fill their 100 bytes"):
                files.add(bytes(size), "a", "vision")
        for id, (length, _) in kept.items():
            assert len(files.get(id, "f").data) == length
    now += 10
    for id in kept:
        with pytest.raises(Refusal, match="f: no file"):
            files.get(id, "f")


# -- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "224.0.0.1", "::1", "fe80::1", "fd00::1", "::ffff:127.0.0.1",
        "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_addresses_of_this_network_are_not_public(address: str) -> None:
    assert not remote.public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822"])
def test_other_addresses_are(address: str) -> None:
    assert remote.public(ipaddress.ip_address(address))


class Site(http.server.BaseHTTPRequestHandler):
    """Pictures, redirects and an endless file."""

    def do_GET(self) -> None:
        goes = {
            "/moved": "/dot.png",
            "/inside": f"http://127.0.0.2:{self.server.server_port}/dot.png",  # type: ignore[attr-defined]
            "/round": "/round",
            "/file": "file:///etc/passwd",
        }
        if self.path in goes:
            self.send_response(302)
            self.send_header("Location", goes[self.path])
            self.end_headers()
        elif self.path == "/dot.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(DOT)
        elif self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1000))
            except OSError:
                pass
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def only_here(address: remote.Address) -> bool:
    """Lets one address pass for public."""
    return str(address) == "127.0.0.1"


def fetched(url: str) -> bytes:
    return asyncio.run(remote.fetch(url, 2000, "field", only_here))


@pytest.mark.parametrize("path", ["/dot.png", "/moved"])
def test_a_picture_is_fetched(site: str, path: str) -> None:
    assert fetched(site + path) == DOT


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/inside", "field: its host is not a public one"),
        ("/file", "field: only plain http and https"),
        ("/round", "field: more than 3 redirects"),
        ("/nothing", "field: the host answered 404"),
        ("/endless", "field: more than 2000 bytes"),
    ],
)
def test_what_leads_astray_is_refused(site: str, path: str, says: str) -> None:
    with pytest.raises(Refusal, match=says):
        fetched(site + path)


@pytest.mark.parametrize(
    "url",
    ["http://", "http://a:b@127.0.0.1/", "ftp://127.0.0.1/", "http://127.0.0.1:x/", "http://[::1",
     "http://127.0.0.1:1/", "http://\ud800/", "http://" + "a" * 70 + "/"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(Refusal, match="field: "):
        fetched(url)


def test_by_default_this_machine_is_not_asked(site: str) -> None:
    with pytest.raises(Refusal, match="its host is not a public one"):
        asyncio.run(remote.fetch(f"{site}/dot.png", 2000, "field"))


def test_an_upload_has_to_be_within_the_limits_too() -> None:
    check(DOT, LIMITS, "file")
    with pytest.raises(Refusal, match="file: more than 10 bytes"):
        check(DOT, replace(LIMITS, image_bytes=10), "file")
