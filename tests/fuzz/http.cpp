// SPDX-License-Identifier: Apache-2.0
// Bytes of a client, to the server itself, which reads bodies as each of its APIs does: it answers or closes.
#include <nlohmann/json.hpp>

#include "launch/serve/dialects.h"
#include "launch/serve/http.h"
#include "launch/serve/parts.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/raw_client.h"

namespace {

using namespace lockstep::serve;

// All that is read of a request before a model is asked.
HttpResponse read(const HttpRequest& request) {
  const Dialect* const all[] = {&kOwn, &kOpenAi, &kAutomatic1111};
  const Dialect& dialect = *all[request.path.size() % 3];
  try {
    if (is_json_lines(request)) {
      for (const HttpRequest& line : requests_in_lines(request, 16)) named_model(read_json(line));
      return {};
    }
    const nlohmann::json body = in_our_words(dialect, read_json(request));
    named_model(body);
    std::vector<std::string> pictures;
    read_pictures(request, body, {}, pictures);
    if (body.is_null()) return {};
    Fields fields(body);
    fields.texts("prompt", 16), fields.text("negative_prompt", ""), fields.texts("class", 16);
    fields.whole("num_images_per_prompt", 1, 16), fields.number("guidance_scale", 1);
    fields.whole("height", 1, INT64_MAX), fields.seed(), fields.flag("stream");
    fields.expect_no_others();
    return {};
  } catch (const Refusal& r) {
    return refusal_of(dialect, r);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static HttpServer server(
      "127.0.0.1", 0, {},
      [](const HttpRequest& request, const std::shared_ptr<Reply>& reply) { reply->send(read(request)); });
  lockstep::testing::RawClient client(server.port());
  client.send({reinterpret_cast<const char*>(data), size});
  client.say_no_more();
  const std::string all = client.rest();
  if (!all.empty() && !all.starts_with("HTTP/1.")) std::abort();
  return 0;
}
