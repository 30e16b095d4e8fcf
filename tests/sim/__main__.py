"""python3 tests/sim: a strict stand-in for Entra ID and Exchange Online."""

import sys

sys.dont_write_bytecode = True  # the source tree may be read-only

import argparse
import json
import os
import signal
import threading

import ca
import client
import settings
from admin import Admin
from entra import Entra
from exchange import Exchange
from imds import Imds
from listen import Listener
from state import State


def serve(args):
    directory = os.path.abspath(args.dir)
    os.makedirs(directory, exist_ok=True)
    config = settings.EXAMPLE
    if args.config:
        with open(args.config) as f:
            config = json.load(f)
    ca.make(directory)
    state = State(directory, config)

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_args: stopping.set())
    if args.stdin:
        threading.Thread(target=lambda: (sys.stdin.buffer.read(),
                                         stopping.set()),
                         daemon=True).start()

    entra = Entra(state, ca.contexts(directory, "entra"))
    exchange = Exchange(state, ca.contexts(directory, "smtp"))
    listeners = {
        "entra": Listener(args.entra_address, args.entra_port, entra.serve),
        "smtp": Listener(args.smtp_address, args.smtp_port, exchange.serve),
        "imds": Listener(args.entra_address, args.imds_port, Imds(state).serve)}
    for listener in listeners.values():
        listener.open()
    Admin(state, listeners, stopping.set).start()

    about = {"pid": os.getpid(), "dir": directory,
             "ca": os.path.join(directory, "ca.pem"),
             "admin": os.path.join(directory, "admin")}
    for name, listener in listeners.items():
        about[name] = {"address": listener.address, "port": listener.port}
    ready = os.path.join(directory, "sim.json")
    with open(ready + ".tmp", "w") as f:
        json.dump(about, f, indent=1)
    os.rename(ready + ".tmp", ready)

    stopping.wait()
    for name in ("sim.json", "admin"):
        try:
            os.unlink(os.path.join(directory, name))
        except FileNotFoundError:
            pass
    sys.stdout.flush()
    os._exit(0)         # threads may hang in silence faults; nothing to save


def control(args):
    answer = client.ask(args.directory, json.loads(args.request))
    print(json.dumps(answer, indent=1))
    return 0 if answer["ok"] else 1


def credentials(args):
    """Through the running stand-in if there is one, so that it can register."""
    if os.path.exists(os.path.join(args.directory, "admin")):
        answer = client.ask(args.directory, {
            "op": "credentials", "name": args.name, "tenant": args.tenant,
            "client_id": args.client_id})
        if not answer.pop("ok"):
            print(answer["error"], file=sys.stderr)
            return 1
    else:
        answer = ca.credentials(os.path.abspath(args.directory), args.name)
    print(json.dumps(answer, indent=1))
    return 0


def main(argv):
    if argv[:1] == ["ctl"]:
        parser = argparse.ArgumentParser(prog="sim ctl")
        parser.add_argument("directory")
        parser.add_argument("request", help='JSON, e.g. {"op": "state"}')
        return control(parser.parse_args(argv[1:]))
    if argv[:1] == ["credentials"]:
        parser = argparse.ArgumentParser(prog="sim credentials")
        parser.add_argument("directory")
        parser.add_argument("--name", default="client")
        parser.add_argument("--tenant", help="register there (needs a "
                            "running stand-in)")
        parser.add_argument("--client-id")
        return credentials(parser.parse_args(argv[1:]))
    parser = argparse.ArgumentParser(prog="sim", description=__doc__)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--entra-port", type=int, default=0)
    parser.add_argument("--smtp-port", type=int, default=0)
    parser.add_argument("--imds-port", type=int, default=0)
    parser.add_argument("--entra-address", default="127.0.0.1")
    parser.add_argument("--smtp-address", default="127.0.0.2")
    parser.add_argument("--config", help="settings, as JSON")
    parser.add_argument("--stdin", action="store_true",
                        help="stop when standard input ends")
    return serve(parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
