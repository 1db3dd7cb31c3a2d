// SPDX-License-Identifier: Apache-2.0
// A graph of one's own, without a model: each pixel becomes the mean of the nine around it.
#include <lockstep/models/blocks.h>
#include <lockstep/runtime/training/session.h>
#include <cstdio>
#include <vector>

using namespace lockstep;

int main() try {
  constexpr int64_t kSize = 4;
  const Program blur = {
      "blur",
      [](ModelContext& context, int64_t batch, NamedValues& values) {
        GraphBuilder& b = context.builder;
        const ValueId x = b.input("images", {DType::f32, {batch, 1, kSize, kSize}}, /*batch=*/true);
        Conv2dParams same;
        same.pad_top = same.pad_left = same.pad_bottom = same.pad_right = 1;
        values["blurred"] = conv2d(b, x, "mean", {1, 1, 3, 3}, same, /*bias=*/false, constant_init(1 / 9.0f));
      },
      [](GraphBuilder& b, NamedValues& values) { add_output(b, values["blurred"], "blurred"); }};
  SessionOptions options;
  options.programs = {blur};
  options.training = false;
  const auto alone = make_self_communicator();
  Session session(options, *alone);
  session.model().initialise(/*seed=*/1);
  session.executor().upload_model();

  session.prepare(blur, /*batch=*/1);  // chooses kernels
  const Session::Compiled& compiled = session.program(blur, /*batch=*/1);
  std::vector<float> image(kSize * kSize, 9.0f);
  StepInputs inputs;
  inputs.set("images", image);
  session.executor().run(*compiled.bound, inputs);
  const float* blurred = session.executor().output(*compiled.bound, "blurred").as<float>();
  for (int64_t i = 0; i < kSize * kSize; ++i)
    std::printf("%3.0f%s", blurred[i], i % kSize == kSize - 1 ? "\n" : "");
} catch (const Error& e) {
  std::fprintf(stderr, "%s\n", e.what());
  return e.code();
}
