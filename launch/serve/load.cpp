// SPDX-License-Identifier: Apache-2.0
#include "launch/serve/load.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "kernels/core/error.h"
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

// One connection, kept over its requests.
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
    if (!o.authority.empty()) set(CURLOPT_CAINFO, o.authority.c_str());
    if (!o.token.empty()) add_header("Authorization: Bearer " + o.token);
  }
  ~Client() { curl_slist_free_all(headers_); }
  Client(const Client&) = delete;

  void add_header(const std::string& line) { headers_ = curl_slist_append(headers_, line.c_str()); }
  // Null: a GET. The body must stay.
  long ask(const std::string& url, const std::string* body) {
    answer_.clear();
    message_[0] = '\0';
    set(CURLOPT_URL, url.c_str());
    set(CURLOPT_HTTPHEADER, headers_);
    if (body) {
      set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(body->size()));
      set(CURLOPT_POSTFIELDS, body->data());
    }
    const CURLcode code = curl_easy_perform(curl_.get());
    long status = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_OK) return status;
    if (!message_[0]) std::snprintf(message_, sizeof message_, "%s", curl_easy_strerror(code));
    return 0;
  }
  const std::string& answer() const { return answer_; }
  const char* message() const { return message_; }  // where ask() gave 0

 private:
  template <class T>
  void set(CURLoption option, T value) {
    LOCKSTEP_ASSERT(curl_easy_setopt(curl_.get(), option, value) == CURLE_OK, "curl option {}",
                    static_cast<int>(option));
  }
  std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl_;
  curl_slist* headers_ = nullptr;
  std::string answer_;
  char message_[CURL_ERROR_SIZE] = "";
};

// The route that is asked, and the one that says what the model is.
struct Routes {
  std::string invoke, model;
};
Routes routes_of(std::string url) {
  const size_t scheme = url.find("://");
  if (!url.starts_with("http://") && !url.starts_with("https://"))
    throw Error(Exit::usage, "E_OPTION", fmt::format("bench: '{}' is no URL", url))
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

Load ask_until(const LoadOptions& o, const std::string& url, LoadClock::time_point end) {
  Client client(o);
  client.add_header("Content-Type: " + o.type);
  client.add_header("Expect:");
  Load load;
  while (LoadClock::now() < end) {
    const auto start = LoadClock::now();
    const long status = client.ask(url, &o.body);
    if (status == 200) {
      load.latencies.push_back(seconds_since(start));
      load.pictures += pictures_in(client.answer());
    } else {
      ++load.errors[status > 0 ? std::to_string(status) : client.message()];
      std::this_thread::sleep_for(kAfterError);
    }
  }
  return load;
}

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
  const long status = first.ask(routes.model, nullptr);
  const auto model = nlohmann::json::parse(first.answer(), nullptr, false);
  if (status != 200 || !model.is_object())
    throw Error(
        Exit::unavailable, "E_BENCH_SERVER",
        status == 0 ? first.message() : fmt::format("answers {}, and does not say what it serves", status))
        .at("url", routes.model);
  if (o.type.empty()) make_body(model, routes.model, o);

  std::vector<Load> parts(static_cast<size_t>(o.clients));
  std::vector<std::thread> threads;
  const auto start = LoadClock::now();
  const auto end =
      start + std::chrono::duration_cast<LoadClock::duration>(std::chrono::duration<double>(o.seconds));
  for (Load& part : parts) threads.emplace_back([&] { part = ask_until(o, routes.invoke, end); });
  for (std::thread& t : threads) t.join();
  Load all;
  all.seconds = seconds_since(start);
  all.model = json_get<std::string>(model, "model", routes.model);
  for (const Load& part : parts) {
    all.latencies.insert(all.latencies.end(), part.latencies.begin(), part.latencies.end());
    for (const auto& [error, n] : part.errors) all.errors[error] += n;
    all.pictures += part.pictures;
  }
  std::sort(all.latencies.begin(), all.latencies.end());
  if (all.latencies.empty())
    throw Error(Exit::unavailable, "E_BENCH_SERVER",
                fmt::format("no request was answered with 200, but {}",
                            all.errors.empty() ? "none in time" : "with " + all.errors.begin()->first))
        .at("url", routes.invoke);
  return all;
}

}  // namespace lockstep::serve
