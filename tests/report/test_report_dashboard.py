import http.client
import re
import socket
import struct
import threading
from contextlib import contextmanager

import pytest
from made_runs import made_front, write, write_search

from nat2deploy.errors import UserError
from nat2deploy.report.dashboard import Dashboard


@contextmanager
def serving(run, **more):
    with Dashboard(run, port=0, **more) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


def get(server, path="/", method="GET", host="127.0.0.1", **headers):
    port = int(server.url.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection(host, port, timeout=30)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    return answer, answer.read().decode()


@pytest.fixture
def run(made, tmp_path):
    return write_search(tmp_path / "run", made)


def test_it_serves_the_report_and_its_library_alone(run):
    with serving(run) as server:
        assert server.url.startswith("http://127.0.0.1:")
        answer, text = get(server)
        assert answer.status == 200 and "Accuracy against cost" in text and len(text) < 400_000
        assert "plotly.js (basic" in get(server, "/plotly.js")[1]
        for path in ("/config.toml", "/../config.toml", "//etc/passwd", "/?x"):
            assert get(server, path)[0].status == 404
        assert get(server, method="POST")[0].status == 501


def test_a_page_that_has_not_changed_is_not_sent_again(run, made):
    with serving(run) as server:
        first, _ = get(server)
        tag = first.headers["ETag"]
        same, nothing = get(server, **{"If-None-Match": tag})
        assert (same.status, nothing) == (304, "")
        write(run / "front.json", made_front(made[:3]))
        fresh, _ = get(server, **{"If-None-Match": tag})
        assert fresh.status == 200 and fresh.headers["ETag"] != tag


def test_a_browser_that_leaves_is_not_told_of(run, capfd, monkeypatch):
    """A page larger than what the system holds for it, of which nobody reads."""
    monkeypatch.setattr(Dashboard, "page", lambda _: "x" * 50_000_000)
    with serving(run) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % port)
            connection.recv(1000)
        assert get(server)[0].status == 200  # it goes on, with all of the page
    assert capfd.readouterr().err == ""


def test_a_page_of_another_name_cannot_read_it(run):
    with serving(run) as server:
        answer, text = get(server, Host="evil.example")
        assert answer.status == 403 and "Accuracy" not in text


def test_a_run_that_went_away_is_said(run):
    with serving(run) as server:
        (run / "config.toml").unlink()
        answer, text = get(server)
        assert answer.status == 503 and "no run at" in text


def test_no_run_and_a_taken_port_are_one_line(run, tmp_path):
    with pytest.raises(UserError, match="no run at"):
        Dashboard(tmp_path)
    with serving(run) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(UserError, match=r"choose another --host or --port"):
            Dashboard(run, port=port)
    with pytest.raises(UserError, match=r"^cannot listen on no\.such\.invalid, .*another --host"):
        Dashboard(run, host="no.such.invalid", port=0)


@pytest.mark.parametrize("host", ["", "a..b", "x" * 80, "[::1]", "::zz", "192.0.2.1"])
def test_what_is_no_host_of_this_machine_is_refused(run, host):
    """An empty one would let every machine look."""
    with pytest.raises(UserError, match=r"give --host|choose another --host"):
        Dashboard(run, host=host, port=0)


def _has_sixth() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_sixth(), reason="this machine has no IPv6")
def test_it_listens_on_an_address_of_ipv6(run):
    with serving(run, host="::1") as server:
        assert re.fullmatch(r"http://\[::1\]:\d+/", server.url)
        answer, text = get(server, host="::1")
        assert answer.status == 200 and "Accuracy against cost" in text
        assert get(server, host="::1", Host="evil.example")[0].status == 403
