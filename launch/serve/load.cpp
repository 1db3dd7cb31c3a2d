// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/load.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/core/error.h"
#include "launch/fetch/shown_url.h"
#include "launch/serve/body.h"
#include "runtime/files/json_text.h"
#include "runtime/files/json_value.h"

namespace lockstep::serve {
namespace {

using LoadClock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kAfterError{20};  // a server that refuses is not asked in a tight loop

double seconds_since(LoadClock::time_point start) {
  return std::chrono::duration<double>(LoadClock::now() - start).count();
}

size_t append(char* data, size_t, size_t n, void* to) {
  static_cast<std::string*>(to)->append(data, n);
  return n;
}

// Requests of one client after another.
class Client {
 public:
  explicit Client(const LoadOptions& o) : curl_(curl_easy_init(), &curl_easy_cleanup) {
    LOCKSTEP_ASSERT(curl_);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_CONNECTTIMEOUT, 10L);
    set(CURLOPT_TIMEOUT, 600L);
    set(CURLOPT_ERRORBUFFER, message_);
    set(CURLOPT_WRITEFUNCTION, &append);
    set(CURLOPT_WRITEDATA, static_cast<void*>(&answer_));
    set(CURLOPT_PRIVATE, static_cast<void*>(this));
    if (!o.authority.empty()) set(CURLOPT_CAINFO, o.authority.c_str());
    if (!o.token.empty()) add_header("Authorization: Bearer " + o.token);
  }
  ~Client() { curl_slist_free_all(headers_); }
  Client(const Client&) = delete;

  // Null body: a GET. What it sends must stay.
  void will_ask(const std::string& url, const std::string& type, const std::string* body) {
    set(CURLOPT_URL, url.c_str());
    if (!type.empty()) add_header("Content-Type: " + type);
    add_header("Expect:");
    set(CURLOPT_HTTPHEADER, headers_);
    if (!body) return;
    set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body->size()));
    set(CURLOPT_POSTFIELDS, body->data());
  }
  CURL* begin() {
    answer_.clear();
    message_[0] = '\0';
    began_ = LoadClock::now();
    return curl_.get();
  }
  // The status of the answer; 0: there is none, message() says why.
  long end(CURLcode code) {
    seconds_ = seconds_since(began_);
    long status = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK) return status;
    if (!message_[0]) std::snprintf(message_, sizeof message_, "%s", curl_easy_strerror(code));
    return 0;
  }
  double seconds() const { return seconds_; }
  const std::string& answer() const { return answer_; }
  const char* message() const { return message_; }

 private:
  template <class T>
  void set(CURLoption option, T value) {
    LOCKSTEP_ASSERT(curl_easy_setopt(curl_.get(), option, value) == CURLE_OK, "curl option {}",
                    static_cast<int>(option));
  }
  void add_header(const std::string& line) { headers_ = curl_slist_append(headers_, line.c_str()); }

  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl_;
  curl_slist* headers_ = nullptr;
  std::string answer_;
  char message_[CURL_ERROR_SIZE] = "";
  LoadClock::time_point began_;
  double seconds_ = 0;
};

// The route that is asked, and the one that says what the model is.
struct Routes {
  std::string invoke, model;
};
Routes routes_of(std::string url) {
  const size_t scheme = url.find("://");
  if (!url.starts_with("http://") && !url.starts_with("https://"))
    throw Error(Exit::usage, "E_OPTION", fmt::format("bench: '{}' is no URL", shown_url(url)))
        .hint("http://127.0.0.1:8080");
  while (url.ends_with('/')) url.pop_back();
  const size_t path = url.find('/', scheme + 3);
  if (path == std::string::npos) return {url + "/invocations", url + "/model"};
  const std::string kInvoke = "/invoke";
  if (url.ends_with(kInvoke)) return {url, url.substr(0, url.size() - kInvoke.size())};
  return {url, url.substr(0, path) + "/model"};
}

// What such a model is asked: pixels of a fixed pattern, or a picture by default.
void make_body(const nlohmann::json& model, const std::string& from, LoadOptions& o) {
  if (json_get<std::string>(model, "task", from) == "draw") {
    nlohmann::ordered_json body = {{"num_images_per_prompt", o.pictures}};
    if (o.steps > 0) body["num_inference_steps"] = o.steps;
    if (json_get<bool>(model, "prompts", from))
      body["prompt"] = o.prompt.empty() ? "a picture" : o.prompt;
    else if (!o.prompt.empty())
      throw Error(Exit::config, "E_PROMPT", "bench: a prompt, but the model reads no text").at("url", from);
    o.body = json_text(body), o.type = "application/json";
    return;
  }
  if (!o.prompt.empty())
    throw Error(Exit::config, "E_PROMPT", "bench: a prompt, but the model draws nothing").at("url", from);
  Image image{json_get<int64_t>(model, "channels", from),
              json_get<int64_t>(model, "height", from),
              json_get<int64_t>(model, "width", from),
              {}};
  if ((image.channels != 1 && image.channels != 3) || image.height < 1 || image.width < 1 ||
      image.height > 65500 || image.width > 65500)
    throw Error(Exit::data, "E_BENCH_SERVER", "a model of this size takes no picture").at("url", from);
  image.pixels.resize(static_cast<size_t>(image.channels * image.height * image.width));
  for (size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<uint8_t>(i * 37 % 251);
  o.body = encode_png(image), o.type = "image/png";
}

int64_t pictures_in(const std::string& answer) {
  const auto j = nlohmann::json::parse(answer, nullptr, false);
  if (!j.is_object() || !j.contains("generated_images")) return 0;
  return static_cast<int64_t>(j["generated_images"].size());
}

// All clients on this thread, which leaves the cores to the server: each asks again as soon as it is answered.
class Clients {
 public:
  Clients(const LoadOptions& o, const std::string& url)
      : draws_(o.type == "application/json"), multi_(curl_multi_init(), &curl_multi_cleanup) {
    LOCKSTEP_ASSERT(multi_);
    for (int i = 0; i < o.clients; ++i)
      clients_.emplace_back(std::make_unique<Client>(o))->will_ask(url, o.type, &o.body);
  }
  ~Clients() {
    for (CURL* c : under_way_) curl_multi_remove_handle(multi_.get(), c);
  }
  Clients(const Clients&) = delete;

  Load ask_until(LoadClock::time_point end) {
    for (const auto& c : clients_) ask(*c);
    while (!under_way_.empty() || !waiting_.empty()) {
      const auto now = LoadClock::now();
      if (now >= end) waiting_.clear();
      for (; !waiting_.empty() && waiting_.front().first <= now; waiting_.pop_front())
        ask(*waiting_.front().second);
      int running = 0;
      check(curl_multi_perform(multi_.get(), &running));
      if (take_answers(end)) continue;  // who asked again has not sent yet
      check(curl_multi_poll(multi_.get(), nullptr, 0, static_cast<int>(kAfterError.count()), nullptr));
    }
    return std::move(load_);
  }

 private:
  static void check(CURLMcode code) {
    LOCKSTEP_ASSERT(code == CURLM_OK, "curl: {}", curl_multi_strerror(code));
  }
  void ask(Client& c) {
    CURL* const handle = c.begin();
    check(curl_multi_add_handle(multi_.get(), handle));
    under_way_.insert(handle);
  }
  bool take_answers(LoadClock::time_point end) {
    bool any = false;
    int left = 0;
    while (const CURLMsg* m = curl_multi_info_read(multi_.get(), &left)) {
      if (m->msg != CURLMSG_DONE) continue;
      CURL* const handle = m->easy_handle;
      const CURLcode code = m->data.result;
      Client* c = nullptr;
      curl_easy_getinfo(handle, CURLINFO_PRIVATE, &c);
      check(curl_multi_remove_handle(multi_.get(), handle));
      under_way_.erase(handle);
      const bool good = count(*c, c->end(code));
      any = true;
      if (LoadClock::now() >= end) continue;
      if (good)
        ask(*c);
      else
        waiting_.emplace_back(LoadClock::now() + kAfterError, c);
    }
    return any;
  }
  bool count(const Client& c, long status) {
    if (status != 200) {
      ++load_.errors[status > 0 ? std::to_string(status) : c.message()];
      return false;
    }
    load_.latencies.push_back(c.seconds());
    if (draws_) load_.pictures += pictures_in(c.answer());
    return true;
  }

  const bool draws_;
  std::unique_ptr<CURLM, decltype(&curl_multi_cleanup)> multi_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::set<CURL*> under_way_;
  std::deque<std::pair<LoadClock::time_point, Client*>> waiting_;  // after an error, in order of time
  Load load_;
};

}  // namespace

double Load::quantile(double p) const {
  const auto n = static_cast<double>(latencies.size());
  return latencies[static_cast<size_t>(std::max(1.0, std::ceil(p * n))) - 1];
}

Load put_load(const LoadOptions& options) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  LOCKSTEP_ASSERT(ready == CURLE_OK);
  LoadOptions o = options;
  const Routes routes = routes_of(o.url);
  Client first(o);
  first.will_ask(routes.model, "", nullptr);
  CURL* const handle = first.begin();
  const long status = first.end(curl_easy_perform(handle));
  const auto model = nlohmann::json::parse(first.answer(), nullptr, false);
  if (status != 200 || !model.is_object())
    throw Error(
        Exit::unavailable, "E_BENCH_SERVER",
        status == 0 ? first.message() : fmt::format("answers {}, and does not say what it serves", status))
        .at("url", shown_url(routes.model));
  if (o.type.empty()) make_body(model, shown_url(routes.model), o);

  const auto start = LoadClock::now();
  const auto end =
      start + std::chrono::duration_cast<LoadClock::duration>(std::chrono::duration<double>(o.seconds));
  Load all = Clients(o, routes.invoke).ask_until(end);
  all.seconds = seconds_since(start);
  all.model = json_get<std::string>(model, "model", routes.model);
  std::sort(all.latencies.begin(), all.latencies.end());
  if (all.latencies.empty())
    throw Error(Exit::unavailable, "E_BENCH_SERVER",
                fmt::format("no request was answered with 200, but {}",
                            all.errors.empty() ? "none in time" : "with " + all.errors.begin()->first))
        .at("url", routes.invoke);
  return all;
}

}  // namespace lockstep::serve
