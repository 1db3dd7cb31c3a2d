// SPDX-License-Identifier: Apache-2.0
#include "launch/fetch/transfer.h"

#include <curl/curl.h>

#include <exception>
#include <memory>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 30;  // six times the largest set; a server must not fill the disk

struct State {
  const std::string& name;
  PartFile& out;
  const FetchOptions& options;
  int64_t resumed_at = 0;
  bool too_long = false;
  std::exception_ptr error;
};

// Exceptions must not pass through libcurl's frames: they wait in the state.
size_t on_data(char* data, size_t, size_t n, void* user) {
  auto* s = static_cast<State*>(user);
  try {
    s->too_long = s->out.size() + static_cast<int64_t>(n) > kMaxBytes;
    if (s->too_long) return 0;
    s->out.append(data, static_cast<int64_t>(n));
    return n;
  } catch (...) {
    s->error = std::current_exception();
    return 0;
  }
}

int on_progress(void* user, curl_off_t total, curl_off_t done, curl_off_t, curl_off_t) {
  auto* s = static_cast<State*>(user);
  try {
    if (done > 0) s->options.progress(s->name, s->resumed_at + done, total > 0 ? s->resumed_at + total : 0);
    return 0;
  } catch (...) {
    s->error = std::current_exception();
    return 1;
  }
}

CURLcode perform(CURL* curl, const std::string& url, State& s, char* message) {
  const auto set = [curl](CURLoption option, auto value) {
    LOCKSTEP_ASSERT(curl_easy_setopt(curl, option, value) == CURLE_OK, "curl option {}",
                    static_cast<int>(option));
  };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_ERRORBUFFER, message);
#if LIBCURL_VERSION_NUM >= 0x075500
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
#else
  set(CURLOPT_PROTOCOLS, long{CURLPROTO_HTTP | CURLPROTO_HTTPS});
  set(CURLOPT_REDIR_PROTOCOLS, long{CURLPROTO_HTTP | CURLPROTO_HTTPS});
#endif
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, 5L);
  set(CURLOPT_FAILONERROR, 1L);
  set(CURLOPT_USERAGENT, "lockstep");
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT, s.options.connect_seconds);
  set(CURLOPT_LOW_SPEED_LIMIT, s.options.least_bytes_per_second);
  set(CURLOPT_LOW_SPEED_TIME, s.options.stall_seconds);
  set(CURLOPT_WRITEFUNCTION, &on_data);
  set(CURLOPT_WRITEDATA, static_cast<void*>(&s));
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, &on_progress);
  set(CURLOPT_XFERINFODATA, static_cast<void*>(&s));
  set(CURLOPT_RESUME_FROM_LARGE, static_cast<curl_off_t>(s.out.size()));
  s.resumed_at = s.out.size();
  return curl_easy_perform(curl);
}

}  // namespace

TransferResult transfer(const std::string& url, const std::string& name, PartFile& out,
                        const FetchOptions& options) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), &curl_easy_cleanup);
  LOCKSTEP_ASSERT(ready == CURLE_OK && curl);
  State state{name, out, options, 0, false, nullptr};
  char message[CURL_ERROR_SIZE] = "";
  CURLcode code = perform(curl.get(), url, state, message);
  long status = 0;
  curl_easy_getinfo(curl.get(), CURLINFO_RESPONSE_CODE, &status);
  // The server cannot continue (200 instead of 206), or what lies here is no beginning of its file (416).
  if (state.resumed_at > 0 && (code == CURLE_RANGE_ERROR || status == 416)) {
    out.truncate();
    message[0] = '\0';
    code = perform(curl.get(), url, state, message);
  }
  if (state.error) std::rethrow_exception(state.error);
  if (code == CURLE_OK) return {true, false, ""};
  if (state.too_long) return {false, false, fmt::format("sends more than {} bytes", kMaxBytes)};
  const bool broke = code == CURLE_PARTIAL_FILE || code == CURLE_RECV_ERROR || code == CURLE_SEND_ERROR ||
                     code == CURLE_GOT_NOTHING || code == CURLE_OPERATION_TIMEDOUT;
  return {false, broke, message[0] ? message : curl_easy_strerror(code)};
}

}  // namespace lockstep
