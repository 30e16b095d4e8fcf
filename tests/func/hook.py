"""What alarms are sent to: a web server that remembers, and a command that does."""

import http.server
import json
import os
import threading

import procs


class WebHook:
    """POSTs it has got, as JSON; answers each with the next of `answers`, at last 204."""

    def __init__(self, answers=()):
        self.notices, self.answers = [], list(answers)
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = hook.answers.pop(0) if hook.answers else 204
                if status == 204:
                    hook.notices.append(json.loads(body))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d/hook" % self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def wait(self, n, timeout=30):
        procs.wait_for(lambda: len(self.notices) >= n, timeout,
                       lambda: "%d notices: %s" % (n, self.notices))
        return self.notices


def command(lab):
    """An alarm_command that appends each notice to a file, and that file."""
    path = os.path.join(lab.folder, "notices")
    return "cat >>%s; echo \"|$RELAY365_EVENT|$RELAY365_ID|$RELAY365_WAITING\" >>%s" % (
        path, path), path


def wait_command(path, n, timeout=30):
    """The first n notices of command(): (object, what its environment said)."""
    def lines():
        return [line for line in procs.read(path).splitlines() if "|" in line]

    procs.wait_for(lambda: len(lines()) >= n, timeout, lambda: "%d notices: %r" % (
        n, procs.read(path)))
    split = [line.partition("|") for line in lines()]
    return [(json.loads(text), rest) for text, _bar, rest in split]
