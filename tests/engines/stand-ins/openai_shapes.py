"""What both stand-ins answer: one word to whatever is asked, in OpenAI's shapes, with the gauges of the real program."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WORD = "hello"


def serve(host: str, port: int, *, name: str, gauges: str) -> None:
    """Serve until killed."""
    running = [0]
    changing = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: str) -> None:
            data = body.encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            match self.path:
                case "/health":
                    self.answer(200, "{}")
                case "/v1/models":
                    self.answer(200, json.dumps({"object": "list", "data": [{"id": name}]}))
                case "/metrics" if gauges:
                    self.answer(200, gauges.format(running=running[0]))
                case _:
                    self.answer(404, "{}")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            with changing:
                running[0] += 1
            try:
                message = {"role": "assistant", "content": WORD}
                choice = {"index": 0, "text": WORD, "message": message, "finish_reason": "stop"}
                self.answer(200, json.dumps({"id": "c", "model": name, "choices": [choice]}))
            finally:
                with changing:
                    running[0] -= 1

    ThreadingHTTPServer((host, port), Handler).serve_forever()
