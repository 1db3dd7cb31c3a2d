// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/parts.h"

#include <fmt/format.h>

#include <atomic>

#include "launch/serve/answers.h"
#include "launch/serve/body.h"

namespace lockstep::serve {
namespace {

struct Lines {
  std::vector<HttpResponse> answers;
  std::atomic<size_t> missing;
  std::function<void(HttpResponse)> whole;
  std::function<bool()> gone;

  void finish() {
    HttpResponse all{200, "application/jsonlines", ""};
    for (size_t i = 0; i < answers.size(); ++i) {
      HttpResponse& one = answers[i];
      if (one.status != 200) {
        one.headers.emplace_back("X-Line", std::to_string(i + 1));
        return whole(std::move(one));
      }
      all.body += one.body + "\n";
    }
    whole(std::move(all));
  }
};

class LineReply : public Reply {
 public:
  LineReply(std::shared_ptr<Lines> lines, size_t at) : lines_(std::move(lines)), at_(at) {}
  ~LineReply() override {
    if (!sent_) send(error_answer(500, "no answer was made"));
  }
  void send(HttpResponse response) override {
    if (sent_.exchange(true)) return;
    lines_->answers[at_] = std::move(response);
    if (--lines_->missing == 0) lines_->finish();
  }
  bool gone() const override { return lines_->gone(); }

 private:
  const std::shared_ptr<Lines> lines_;
  const size_t at_;
  std::atomic<bool> sent_ = false;
};

}  // namespace

bool is_json_lines(const HttpRequest& request) {
  const std::string type = content_type(request);
  return type == "application/jsonlines" || type == "application/x-jsonlines" ||
         type == "application/x-ndjson";
}

std::vector<HttpRequest> requests_in_lines(const HttpRequest& request, int64_t most) {
  std::vector<HttpRequest> all;
  for (size_t at = 0; at < request.body.size();) {
    const size_t end = std::min(request.body.find('\n', at), request.body.size());
    std::string line = request.body.substr(at, end - at);
    at = end + 1;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (static_cast<int64_t>(all.size()) == most)
      throw Refusal{400, fmt::format("a body has {} lines at most", most)};
    HttpRequest one;
    one.method = request.method, one.path = request.path, one.peer = request.peer;
    one.headers = {{"content-type", "application/json"}, {"accept", "application/json"}};
    one.body = std::move(line);
    all.push_back(std::move(one));
  }
  if (all.empty()) throw Refusal{400, "the body is empty"};
  return all;
}

std::vector<std::shared_ptr<Reply>> replies_in_lines(size_t count, std::function<void(HttpResponse)> whole,
                                                     std::function<bool()> gone) {
  const auto lines = std::make_shared<Lines>();
  lines->answers.resize(count);
  lines->missing = count;
  lines->whole = std::move(whole), lines->gone = std::move(gone);
  std::vector<std::shared_ptr<Reply>> replies;
  for (size_t i = 0; i < count; ++i) replies.push_back(std::make_shared<LineReply>(lines, i));
  return replies;
}

}  // namespace lockstep::serve
