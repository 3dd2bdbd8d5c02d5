"""Finding cameras: WS-Discovery, and what ONVIF devices say of their streams. All of it is hostile input."""
