// SPDX-License-Identifier: Apache-2.0
// The APIs of other servers that clients have, streams, and what the server says of itself.
#include <atomic>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "tests/launch/serve_support.h"

namespace lockstep::testing {
namespace {

using nlohmann::json;

class ServeApis : public Serve {
 protected:
  struct Event {
    std::string name;
    json data;
  };
  static std::vector<Event> events(const std::string& body) {
    std::vector<Event> all;
    std::istringstream text(body);
    for (std::string line; std::getline(text, line);) {
      if (line.starts_with("event: ")) all.push_back({line.substr(7), {}});
      if (line.starts_with("data: ")) all.back().data = json::parse(line.substr(6), nullptr, false);
    }
    return all;
  }
  static RawClient::Answer openai(RawClient& c, const std::string& body) {
    return c.post(body, "application/json", "", "/v1/images/generations");
  }
  static RawClient::Answer txt2img(RawClient& c, const std::string& body) {
    return c.post(body, "application/json", "", "/sdapi/v1/txt2img");
  }
  // "400 n is a whole number ..." in OpenAI's form.
  static std::string openai_refusal(RawClient& c, const std::string& body) {
    const auto a = openai(c, body);
    const json e = json::parse(a.body)["error"];
    EXPECT_EQ(e["type"], a.status < 500 ? "invalid_request_error" : "server_error");
    if (e["param"].is_string()) {
      EXPECT_TRUE(e["message"].get<std::string>().starts_with(e["param"].get<std::string>()));
    }
    return std::to_string(a.status) + " " + e["message"].get<std::string>();
  }
  static std::string sdapi_refusal(RawClient& c, const std::string& body) {
    const auto a = txt2img(c, body);
    const json e = json::parse(a.body);
    for (const char* key : {"error", "detail", "body", "errors"}) EXPECT_TRUE(e.contains(key)) << key;
    return std::to_string(a.status) + " " + e["detail"].get<std::string>();
  }
};

TEST_F(ServeApis, AllOfThemDrawTheSamePicture) {
  fit_text_painter();
  serve();
  RawClient c(port_);
  const auto own =
      c.post(R"({"prompt": "a 3", "negative_prompt": "a 5", "num_images_per_prompt": 2, "seed": 5,
      "num_inference_steps": 4, "guidance_scale": 2, "sampler": "euler", "height": 8, "width": 8})");
  ASSERT_EQ(own.status, 200) << own.body;
  const json pictures = json::parse(own.body)["generated_images"];
  const auto by_openai =
      openai(c, R"({"model": "run", "prompt": "a 3", "n": 2, "size": "8x8", "response_format": "b64_json",
      "output_format": "png", "quality": "auto", "background": "opaque", "negative_prompt": "a 5", "seed": 5,
      "num_inference_steps": 4, "guidance_scale": 2, "sampler": "euler"})");
  ASSERT_EQ(by_openai.status, 200) << by_openai.body;
  const json answer = json::parse(by_openai.body);
  ASSERT_EQ(answer["data"].size(), 2U);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(answer["data"][i]["b64_json"], pictures[i]);
  EXPECT_GT(answer["created"], 1'600'000'000);
  EXPECT_EQ(answer["size"], "8x8");
  EXPECT_EQ(answer["seed"], 5);
  // With all that clients of it send always.
  const auto by_sdapi =
      txt2img(c, R"({"prompt": "a 3", "negative_prompt": "a 5", "seed": 5, "steps": 4, "cfg_scale": 2.0,
      "width": 8, "height": 8, "batch_size": 2, "n_iter": 1, "sampler_name": "Euler", "send_images": true,
      "save_images": false, "enable_hr": false, "styles": [], "subseed": -1, "subseed_strength": 0.0, "script_args": [],
      "alwayson_scripts": {}, "override_settings": {"sd_model_checkpoint": "run"}, "script_name": null})");
  ASSERT_EQ(by_sdapi.status, 200) << by_sdapi.body;
  const json drawn = json::parse(by_sdapi.body);
  EXPECT_EQ(drawn["images"], pictures);
  EXPECT_EQ(drawn["parameters"]["seed"], 5);
  EXPECT_EQ(drawn["parameters"]["sampler_name"], "Euler");
  EXPECT_EQ(json::parse(drawn["info"].get<std::string>())["prompt"], "a 3");
  // Batches of one are the same pictures.
  const auto batches =
      txt2img(c, R"({"prompt": "a 3", "negative_prompt": "a 5", "seed": 5, "steps": 4, "cfg_scale": 2,
      "n_iter": 2, "sampler_name": "euler"})");
  EXPECT_EQ(json::parse(batches.body)["images"], pictures);
}

TEST_F(ServeApis, WhatIsNotSupportedIsRefusedByItsName) {
  fit_painter();
  serve();
  RawClient c(port_);
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "style": "vivid"})"),
            "400 style is no field that is known here");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "quality": "hd"})"),
            "400 quality is not supported but as \"auto\" \"standard\"");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "response_format": "url"})"),
            "400 response_format is not supported but as \"b64_json\"");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "n": 17})"), "400 n is a whole number from 1 to 16");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "n": 0})"), "400 n is a whole number from 1 to 4096");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "size": "64x64"})"),
            "400 size pictures here are 8x8 (width x height)");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "size": "8"})"), "400 size is WIDTHxHEIGHT or auto");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "output_format": "webp"})"),
            "400 output_format is png or jpeg");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": ["3"]})"), "400 prompt is a string");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "cat"})"), "400 prompt is no class of this model");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "partial_images": 2})"),
            "400 partial_images is of an answer that is a stream");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "stream": true, "partial_images": 4})"),
            "400 partial_images is a whole number from 0 to 3");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "stream": true, "n": 2})"),
            "400 n is 1 where the answer is a stream");
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3", "model": "dall-e-3"})"),
            "400 model is no model that is served");
  EXPECT_EQ(openai_refusal(c, "[]"), "400 the body is no JSON object");
  EXPECT_EQ(sdapi_refusal(c, R"({"enable_hr": true})"), "422 enable_hr is not supported but as false");
  EXPECT_EQ(sdapi_refusal(c, R"({"save_images": true})"), "422 save_images is not supported but as false");
  EXPECT_EQ(sdapi_refusal(c, R"({"styles": ["a"]})"), "422 styles is not supported but as []");
  EXPECT_EQ(sdapi_refusal(c, R"({"init_images": []})"), "422 init_images is no field that is known here");
  EXPECT_EQ(sdapi_refusal(c, R"({"sampler_name": "Heun"})"),
            "422 sampler_name is none of /sdapi/v1/samplers");
  EXPECT_EQ(sdapi_refusal(c, R"({"steps": 5000})"), "422 steps is a whole number from 1 to 1000");
  EXPECT_EQ(sdapi_refusal(c, R"({"cfg_scale": "high"})"), "422 cfg_scale is a number from 0 to 100");
  EXPECT_EQ(sdapi_refusal(c, R"({"sampler_name": "Euler a", "eta": 0.5})"), "422 eta is 1 for this sampler");
  EXPECT_EQ(sdapi_refusal(c, R"({"sampler_name": "DDIM", "eta": 2})"), "422 eta is a number from 0 to 1");
  EXPECT_EQ(sdapi_refusal(c, R"({"scheduler": "Karras"})"),
            "422 scheduler is not supported but as \"automatic\" \"Automatic\"");
  EXPECT_EQ(sdapi_refusal(c, R"({"batch_size": 4, "n_iter": 5})"),
            "422 batch_size is a whole number from 1 to 16");
  EXPECT_EQ(sdapi_refusal(c, R"({"override_settings": {"CLIP_stop_at_last_layers": 2}})"),
            "422 override_settings.CLIP_stop_at_last_layers is not supported");
  EXPECT_EQ(sdapi_refusal(c, "{"), "400 the body is no JSON");
  EXPECT_EQ(c.get("/sdapi/v1/txt2img").header("Allow"), "POST");
  // A model of classes takes a class for the prompt, as /invocations takes it for "class".
  const json by_class = json::parse(c.post(R"({"class": "3", "seed": 1, "num_inference_steps": 2})").body);
  const json by_prompt =
      json::parse(txt2img(c, R"({"prompt": "3", "negative_prompt": "", "seed": 1, "steps": 2})").body);
  EXPECT_EQ(by_prompt["images"], by_class["generated_images"]);
}

// What clients send always, whatever they ask for; eta and sampler_index mean what they mean there.
TEST_F(ServeApis, FieldsThatSayNothingAreTaken) {
  fit_painter();
  serve();
  RawClient c(port_);
  const auto own = [&](const std::string& more) {
    const auto a = c.post(R"({"class": "3", "seed": 1, "num_inference_steps": 4, )" + more + "}");
    EXPECT_EQ(a.status, 200) << a.body;
    return json::parse(a.body)["generated_images"];
  };
  const auto drawn = [&](const std::string& more) {
    const auto a = txt2img(c, R"({"prompt": "3", "seed": 1, "steps": 4, )" + more + "}");
    EXPECT_EQ(a.status, 200) << a.body;
    return json::parse(a.body)["images"];
  };
  EXPECT_EQ(drawn(R"("sampler_name": "DDIM", "sampler_index": "Euler a", "scheduler": "automatic", "eta": 1.0,
      "denoising_strength": 0.7, "firstphase_width": 0, "firstphase_height": 0, "enable_hr": false, "hr_scale": 2,
      "hr_upscaler": "Latent", "hr_second_pass_steps": 0, "hr_resize_x": 0, "hr_resize_y": 0, "hr_prompt": "",
      "hr_negative_prompt": "", "hr_checkpoint_name": null, "hr_sampler_name": null, "hr_scheduler": null,
      "s_churn": 0, "s_tmin": 0, "s_tmax": 0, "s_noise": 1, "s_min_uncond": 0)"),
            own(R"("sampler": "ddim", "eta": 1)"));
  EXPECT_EQ(drawn(R"("sampler_index": "DDIM", "eta": 0)"), own(R"("sampler": "ddim")"));
  EXPECT_NE(own(R"("sampler": "ddim")"), own(R"("sampler": "ddim", "eta": 1)"));
  EXPECT_EQ(drawn(R"("sampler_name": "Euler a", "eta": 1)"), own(R"("sampler": "euler_ancestral")"));
  EXPECT_EQ(drawn(R"("sampler_name": "Euler", "eta": 0.3)"), own(R"("sampler": "euler")"));
  EXPECT_EQ(message(c.post(R"({"sampler": "euler", "eta": 0.3})")).substr(0, 11), "400 sampler");
  const auto by_openai =
      openai(c, R"({"prompt": "3", "seed": 1, "num_inference_steps": 4, "quality": "standard",
      "moderation": "low", "user": "somebody"})");
  ASSERT_EQ(by_openai.status, 200) << by_openai.body;
  EXPECT_EQ(json::parse(by_openai.body)["data"][0]["b64_json"], own(R"("format": "png")")[0]);
  EXPECT_EQ(json::parse(c.get("/sdapi/v1/options").body)["sd_model_checkpoint"], "run");
}

TEST_F(ServeApis, AClassifierDrawsForNobody) {
  fit();
  serve();
  RawClient c(port_);
  EXPECT_EQ(openai_refusal(c, R"({"prompt": "3"})"), "400 model draws no pictures");
  EXPECT_EQ(json::parse(c.get("/sdapi/v1/sd-models").body), json::array());
  EXPECT_EQ(json::parse(c.get("/sdapi/v1/options").body)["sd_model_checkpoint"], nullptr);
}

TEST_F(ServeApis, AStreamShowsThePictureOnItsWay) {
  fit_painter();
  serve();
  RawClient c(port_);
  const std::string asked = R"("class": "3", "seed": 5, "num_inference_steps": 8)";
  const json expected = json::parse(c.post("{" + asked + "}").body)["generated_images"];
  // Ours: each step, some of them with pictures, then the answer. The same bits.
  const auto own = c.post("{" + asked + R"(, "stream": true, "partial_images": 3})");
  EXPECT_EQ(own.header("Content-Type"), "text/event-stream");
  EXPECT_EQ(own.header("X-Accel-Buffering"), "no");
  EXPECT_FALSE(own.header("X-Model").empty());
  auto all = events(own.body);
  ASSERT_EQ(all.size(), 9U) << own.body;
  std::vector<std::string> partials;
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(all[i].name, "progress");
    EXPECT_EQ(all[i].data["step"], i);
    EXPECT_EQ(all[i].data["steps"], 8);
    if (all[i].data.contains("partial_images"))
      partials.push_back(from_base64(all[i].data["partial_images"][0]));
  }
  EXPECT_EQ(all[8].name, "completed");
  EXPECT_EQ(all[8].data["generated_images"], expected);
  ASSERT_EQ(partials.size(), 3U);
  for (const std::string& p : partials) EXPECT_EQ(p.substr(1, 3), "PNG");
  EXPECT_NE(partials[0], partials[2]);
  // OpenAI's.
  const auto by_openai = openai(
      c, R"({"prompt": "3", "seed": 5, "num_inference_steps": 8, "stream": true, "partial_images": 2})");
  all = events(by_openai.body);
  ASSERT_EQ(all.size(), 3U) << by_openai.body;
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(all[i].name, "image_generation.partial_image");
    EXPECT_EQ(all[i].data["type"], all[i].name);
    EXPECT_EQ(all[i].data["partial_image_index"], i);
  }
  EXPECT_EQ(all[2].name, "image_generation.completed");
  EXPECT_EQ(all[2].data["b64_json"], expected[0]);
  // Refused before it begins: no stream. More pictures than steps: one a step.
  EXPECT_EQ(message(c.post(R"({"stream": true, "num_inference_steps": 0})")),
            "400 num_inference_steps is a whole number from 1 to 1000");
  EXPECT_EQ(message(c.post(R"({"stream": 1})")), "400 stream is true or false");
  EXPECT_EQ(message(c.post(R"({"stream": true})", "application/json", "Accept: image/png\r\n")),
            "406 a stream holds JSON");
  EXPECT_EQ(message(c.post(R"({"stream": true})", "application/jsonlines")),
            "400 stream is for a request alone");
  EXPECT_EQ(events(c.post(R"({"num_inference_steps": 3, "stream": true, "partial_images": 9})").body).size(),
            4U);
}

TEST_F(ServeApis, WhoeverLeavesItsStreamEndsItsDrawing) {
  fit_painter();
  serve({"--per-client", "1"});
  for (int i = 0; i < 3; ++i) {
    RawClient leaves(port_);
    leaves.send(
        "POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "
        "66\r\n\r\n{\"num_inference_steps\": 1000, \"stream\": true, \"partial_images\": 9}");
  }
  RawClient c(port_);
  EXPECT_TRUE(soon([&] { return c.post(R"({"num_inference_steps": 2})").status == 200; }));
}

TEST_F(ServeApis, AnInterruptEndsTheCallersOwn) {
  fit_painter();
  serve();
  RawClient c(port_);
  const auto progress = [&](const std::string& query = "") {
    return json::parse(c.get("/sdapi/v1/progress" + query).body);
  };
  EXPECT_EQ(progress()["progress"], 0);
  EXPECT_EQ(progress()["current_image"], nullptr);
  const std::string ask = R"({"prompt": "3", "seed": 5, "steps": 1000})";
  RawClient::Answer whole, interrupted, other;
  // One through /invocations, which an interrupt does not touch.
  std::jthread another([&] { other = RawClient(port_).post(R"({"seed": 7, "num_inference_steps": 1000})"); });
  std::jthread client([&] {
    RawClient own(port_);
    interrupted = txt2img(own, ask);
  });
  json seen;
  EXPECT_TRUE(soon([&] {
    seen = progress();
    return seen["current_image"].is_string();
  }));
  EXPECT_GT(seen["progress"], 0);
  EXPECT_LT(seen["progress"], 1);
  EXPECT_GE(seen["eta_relative"], 0);
  EXPECT_EQ(seen["state"]["sampling_steps"], 1000);
  EXPECT_EQ(from_base64(seen["current_image"]).substr(1, 3), "PNG");
  EXPECT_EQ(progress("?skip_current_image=true")["current_image"], nullptr);
  EXPECT_EQ(c.post("", "application/json", "", "/sdapi/v1/interrupt").body, "{}");
  client.join();
  another.join();
  EXPECT_EQ(interrupted.status, 200) << interrupted.body;
  ASSERT_EQ(json::parse(interrupted.body)["images"].size(), 1U);
  whole = txt2img(c, ask);
  EXPECT_NE(json::parse(interrupted.body)["images"], json::parse(whole.body)["images"]);
  EXPECT_EQ(json::parse(other.body)["generated_images"],
            json::parse(c.post(R"({"seed": 7, "num_inference_steps": 1000})").body)["generated_images"]);
  EXPECT_EQ(progress()["progress"], 0);
  const json samplers = json::parse(c.get("/sdapi/v1/samplers").body),
             models = json::parse(c.get("/sdapi/v1/sd-models").body);
  for (const json& s : samplers)
    EXPECT_EQ(txt2img(c, json{{"sampler_name", s["name"]}, {"steps", 4}}.dump()).status, 200) << s;
  ASSERT_EQ(models.size(), 1U);
  EXPECT_EQ(models[0]["model_name"], "run");
}

TEST_F(ServeApis, PaintersDrawTheSizesThatAreConfigured) {
  fit_text_painter();
  serve({"--size", "8x8", "--size", "16x12"});
  RawClient c(port_);
  const auto size_of = [&](const std::string& body) {
    const auto a = c.post(body, "application/json", "Accept: image/png\r\n");
    if (a.status != 200) return message(a);
    const Image image =
        decode_image("a.png", {reinterpret_cast<const uint8_t*>(a.body.data()), a.body.size()}, 1);
    return fmt::format("{}x{}", image.width, image.height);
  };
  EXPECT_EQ(json::parse(c.get("/model").body)["sizes"], json({"8x8", "16x12"}));
  EXPECT_EQ(size_of(R"({"prompt": "a 3"})"), "8x8");
  EXPECT_EQ(size_of(R"({"prompt": "a 3", "width": 16, "height": 12})"), "16x12");
  EXPECT_EQ(size_of(R"({"prompt": "a 3", "width": 16})"),
            "400 width pictures here are 8x8, 16x12 (width x height)");
  EXPECT_EQ(size_of(R"({"prompt": "a 3", "height": 512})"),
            "400 height pictures here are 8x8, 16x12 (width x height)");
  EXPECT_EQ(json::parse(openai(c, R"({"prompt": "a 3", "size": "16x12"})").body)["size"], "16x12");
  // Drawings of both sizes at once are those that are drawn alone.
  const auto ask = [&](RawClient& client, int i) {
    return client
        .post(json{{"prompt", "a 3"},
                   {"seed", i},
                   {"num_inference_steps", 9},
                   {"width", i % 2 ? 16 : 8},
                   {"height", i % 2 ? 12 : 8}}
                  .dump())
        .body;
  };
  std::vector<std::string> alone;
  for (int i = 0; i < 6; ++i) alone.push_back(ask(c, i));
  std::vector<std::jthread> clients;
  std::atomic<int> equal = 0;
  for (int i = 0; i < 6; ++i)
    clients.emplace_back([&, i] {
      RawClient own(port_);
      equal += ask(own, i) == alone[static_cast<size_t>(i)];
    });
  for (auto& client : clients) client.join();
  EXPECT_EQ(equal, 6);
  ASSERT_TRUE(json::parse(alone[1]).contains("generated_images")) << alone[1];
  // The same bits as another server, or `sample`, draws.
  ASSERT_EQ(lockstep("sample run --prompt 'a 3' --seed 1 --steps 9 --width 16 --height 12 --each drawn").code,
            0);
  EXPECT_EQ(from_base64(json::parse(alone[1])["generated_images"][0]),
            read_file(folder_.file("drawn/000000.png")));
  for (const std::string size : {"8", "8x", "x8", "8x8x8", "0x8", "8x-8"})
    expect(lockstep("serve run --size=" + size), Exit::usage, "WIDTHxHEIGHT");
  expect(lockstep("serve run --size 8x8 --size 8x8"), Exit::usage, "given twice");
  write_job(kLayers);
  fit("digits");
  expect(lockstep("serve digits --port 0 --size 8x8"), Exit::config, "E_SERVE_SIZE",
         "nothing that is served draws");
  fit_painter("classes");
  expect(lockstep("serve classes --port 0 --size 16x16"), Exit::config, "E_SERVE_SIZE", "draws 8x8 alone");
}

TEST_F(ServeApis, SayWhatTheyTake) {
  fit_painter();
  write_file(folder_.file("token"), "s3cret\n");
  serve({"--token-file", folder_.file("token")});
  RawClient c(port_);
  const std::string token = "Authorization: Bearer s3cret\r\n";
  EXPECT_EQ(c.get("/openapi.json").status, 401);
  const json api = json::parse(c.get("/openapi.json", token).body);
  EXPECT_EQ(api["openapi"], "3.1.0");
  // Each route is there, and each field of each body is known where it is said to be.
  for (const auto& [path, methods] : api["paths"].items())
    for (const auto& [method, what] : methods.items()) {
      if (path == "/models/reload") continue;
      std::string real = path;
      if (const size_t at = real.find("{name}"); at != std::string::npos) real.replace(at, 6, "run");
      const bool post = method == "post";
      const auto status = [&](const std::string& body) {
        return post ? c.post(body, "application/json", token, real) : c.get(real, token);
      };
      const auto a = status("{}");
      EXPECT_EQ(a.status, 200) << real << a.body;
      EXPECT_EQ(post ? c.get(real, token).status : c.post("{}", "application/json", token, real).status, 405)
          << real;
      if (!what.contains("requestBody")) continue;
      const json& schema = what["requestBody"]["content"]["application/json"]["schema"];
      EXPECT_EQ(schema["additionalProperties"], false);
      for (const auto& [field, of] : schema["properties"].items()) {
        if (of.contains("enum")) {
          EXPECT_EQ(status(json{{field, of["enum"][0]}}.dump()).status, 200) << real << field;
        } else if (of.contains("maximum")) {  // above it, it is refused by this name
          const auto more = status(json{{field, of["maximum"].get<int64_t>() + 1}}.dump());
          EXPECT_GE(more.status, 400) << real << field;
          EXPECT_NE(more.body.find(field), std::string::npos) << more.body;
        }
      }
      EXPECT_NE(status(R"({"nonsense": 1})").body.find("nonsense"), std::string::npos);
    }
  EXPECT_TRUE(api["paths"]["/ping"]["get"]["security"].empty());
  EXPECT_FALSE(api["paths"]["/model"]["get"].contains("security"));
}

TEST_F(ServeApis, ShowsTheModelsTraining) {
  fit();
  serve();
  RawClient c(port_);
  const auto page = c.get("/run");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.header("Content-Type"), "text/html; charset=utf-8");
  ASSERT_EQ(lockstep("report run --out report.html").code, 0);
  EXPECT_EQ(page.body, read_file(folder_.file("report.html")));
  EXPECT_EQ(c.get("/models/run/run").body, page.body);
  EXPECT_EQ(c.get("/models/none/run").status, 404);
  // What has no metrics has no such page.
  ASSERT_EQ(::system(("cp -r " + folder_.file("run") + " " + folder_.file("bare") + " && rm " +
                      folder_.file("bare/metrics.jsonl"))
                         .c_str()),
            0);
  start({"serve", folder_.file("bare"), "--port", "0"});
  RawClient bare(port_);
  EXPECT_EQ(message(bare.get("/run")), "404 of this model's training nothing is there");
}

}  // namespace
}  // namespace lockstep::testing
