"""An RTSP server that cameras publish to (RECORD): writes what comes to a file, and tells its port.

Run by the system's Python (GStreamer has no wheel): ``/usr/bin/python3 -I rtsp_receiver.py SETTINGS``, where
SETTINGS is JSON: ``port``, ``file`` (H.264), ``user`` and ``password`` (empty: everybody may), and
``cert`` and ``key`` of TLS (empty: none). Ends when standard input closes. `receivers.RtspReceiver` does it.
"""

from __future__ import annotations

import json
import sys
import threading
from typing import Any

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402


def _permissions() -> Any:
    structure = Gst.Structure.new_empty("camera")
    structure.set_value("media.factory.access", True)
    structure.set_value("media.factory.construct", True)
    return structure


def main() -> None:
    """Serve until standard input closes."""
    Gst.init(None)
    settings = json.loads(sys.argv[1])
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(settings["port"]))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_latency(0)
    factory.set_launch(
        "( rtph264depay name=depay0 ! h264parse config-interval=-1 ! "
        "video/x-h264,stream-format=byte-stream,alignment=au ! "
        f'filesink sync=false async=false append=true buffer-mode=unbuffered location="{settings["file"]}" )'
    )
    if settings["user"] or settings["cert"]:
        guard = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "camera")
        if settings["user"]:
            guard.add_basic(GstRtspServer.RTSPAuth.make_basic(settings["user"], settings["password"]), token)
        else:
            guard.set_default_token(token)
        if settings["cert"]:
            guard.set_tls_certificate(Gio.TlsCertificate.new_from_files(settings["cert"], settings["key"]))
        server.set_auth(guard)
        factory.add_role_from_structure(_permissions())
    server.get_mount_points().add_factory("/live", factory)
    if server.attach(None) == 0:
        sys.exit(f"cannot listen on 127.0.0.1:{settings['port']}")
    loop = GLib.MainLoop()
    threading.Thread(target=lambda: (sys.stdin.read(), loop.quit()), daemon=True).start()
    sys.stdout.write(json.dumps({"port": server.get_bound_port()}) + "\n")
    sys.stdout.flush()
    loop.run()


if __name__ == "__main__":
    main()
