"""HTTP and SSE over one runtime engine. Knows neither hive nor queen.

| file | what it alone knows |
| --- | --- |
| `options` | how a worker is started |
| `devices` | a device mask as the library sees it |
| `start`, `report` | loading, the first token, and what is told of it |
| `main` | the process: signals, the pipes of its owner, the order in which things stop |
| `service` | one engine being served: submitting, the jobs, draining |
| `app` | the routes, and errors as HTTP |
| `request` | one HTTP request in a handler's hands |
| `answers` | what chat and text completions share |
| `execute`, `chat`, `completions`, `embeddings`, `tokens`, `status` | the endpoints |
| `sampling` | OpenAI's sampling fields as the engine's |
| `stream` | events of jobs to bytes on a connection: back-pressure, disconnects, in-band failures |
| `chunks` | the bytes of OpenAI's stream chunks, formatted ahead |
| `calls`, `reasoning`, `reader` | tool calls and reasoning in a model's text |
| `metrics`, `health` | what is told of it |
"""
