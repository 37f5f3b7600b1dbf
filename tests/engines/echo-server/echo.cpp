// The "model": gives back the last user message. In a shared library, so that run paths are tested too.
#include <algorithm>
#include <cctype>
#include <string>

std::string answer_of(const std::string& body) {
    const std::string mark = "\"content\":";
    size_t at = body.rfind(mark);
    std::string text = "nothing";
    if (at != std::string::npos) {
        size_t open = body.find('"', at + mark.size());
        size_t close = open == std::string::npos ? open : body.find('"', open + 1);
        if (close != std::string::npos) text = body.substr(open + 1, close - open - 1);
    }
#ifdef ECHO_SHOUT
    std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::toupper(c); });
#endif
    return text;
}
