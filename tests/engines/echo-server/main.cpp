// An OpenAI-compatible server in a hundred lines: /health, /v1/models, /v1/chat/completions (streamed or not).
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>

std::string answer_of(const std::string& body);

static const char* VERSION = "echo-server 1.0.0";

static void send_all(int fd, const std::string& text) {
    size_t sent = 0;
    while (sent < text.size()) {
        ssize_t n = ::send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) return;
        sent += static_cast<size_t>(n);
    }
}

static void reply(int fd, int status, const std::string& type, const std::string& body) {
    std::ostringstream head;
    head << "HTTP/1.1 " << status << (status == 200 ? " OK" : " Not Found") << "\r\nContent-Type: " << type
         << "\r\nContent-Length: " << body.size() << "\r\nConnection: close\r\n\r\n";
    send_all(fd, head.str() + body);
}

static void stream(int fd, const std::string& answer) {
    send_all(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
    const std::string open = R"(data: {"id":"e","object":"chat.completion.chunk","created":0,"model":"echo","choices":[{"index":0,"delta":)";
    send_all(fd, open + R"({"role":"assistant","content":""},"finish_reason":null}]})" + "\n\n");
    std::istringstream words(answer);
    std::string word;
    bool first = true;
    while (words >> word) {
        send_all(fd, open + R"({"content":")" + (first ? "" : " ") + word + R"("},"finish_reason":null}]})" + "\n\n");
        first = false;
    }
    send_all(fd, open + R"({},"finish_reason":"stop"}]})" + "\n\ndata: [DONE]\n\n");
}

static std::string read_request(int fd) {
    std::string text;
    char buffer[8192];
    size_t want = std::string::npos;
    while (text.size() < want && text.size() < (1u << 20)) {
        ssize_t n = ::recv(fd, buffer, sizeof buffer, 0);
        if (n <= 0) break;
        text.append(buffer, static_cast<size_t>(n));
        size_t end = text.find("\r\n\r\n");
        if (end == std::string::npos || want != std::string::npos) continue;
        size_t at = text.find("ontent-Length:"), at2 = text.find("ontent-length:");
        if (at == std::string::npos || at > end) at = at2;
        want = end + 4 + (at == std::string::npos || at > end ? 0 : std::strtoul(text.c_str() + at + 14, nullptr, 10));
    }
    return text;
}

static void serve(int fd) {
    const std::string request = read_request(fd);
    if (request.rfind("GET /health", 0) == 0) {
        reply(fd, 200, "application/json", R"({"status":"ok"})");
    } else if (request.rfind("GET /v1/models", 0) == 0) {
        reply(fd, 200, "application/json", R"({"object":"list","data":[{"id":"echo","object":"model","created":0,"owned_by":"tests"}]})");
    } else if (request.rfind("POST /v1/chat/completions", 0) == 0) {
        const std::string answer = answer_of(request);
        if (request.find("\"stream\":true") != std::string::npos || request.find("\"stream\": true") != std::string::npos) {
            stream(fd, answer);
        } else {
            reply(fd, 200, "application/json",
                  R"({"id":"e","object":"chat.completion","created":0,"model":"echo","choices":[{"index":0,"message":{"role":"assistant","content":")" +
                      answer + R"("},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}})");
        }
    } else {
        reply(fd, 404, "application/json", R"({"error":{"message":"no such route","type":"invalid_request_error","param":null,"code":"not_found"}})");
    }
    ::close(fd);
}

int main(int argc, char** argv) {
    int port = 8080;
    for (int i = 1; i < argc; ++i) {
        if (!std::strcmp(argv[i], "--version")) {
            std::cout << VERSION << std::endl;
            return 0;
        }
        if (!std::strcmp(argv[i], "--port") && i + 1 < argc) port = std::atoi(argv[++i]);
    }
    std::signal(SIGPIPE, SIG_IGN);
    int listener = ::socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(static_cast<uint16_t>(port));
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (::bind(listener, reinterpret_cast<sockaddr*>(&where), sizeof where) != 0 || ::listen(listener, 64) != 0) {
        std::cerr << "echo-server: cannot listen on " << port << ": " << std::strerror(errno) << std::endl;
        return 1;
    }
    for (;;) {
        int fd = ::accept(listener, nullptr, nullptr);
        if (fd >= 0) std::thread(serve, fd).detach();
    }
}
