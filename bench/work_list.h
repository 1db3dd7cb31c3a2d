// SPDX-License-Identifier: Apache-2.0
// The ops of one net: each method adds an op and its gradients, as a training step has them.
#pragma once

#include <initializer_list>

#include "bench/works.h"
#include "kernels/elementwise/elementwise.h"
#include "kernels/loss/loss.h"
#include "kernels/optimizer/optimizer.h"

namespace lockstep {

// Images are square, [batch, channels, size, size]; rows are [batch, features].
class WorkList {
 public:
  WorkList(std::string net, int64_t batch) : net_(std::move(net)), n_(batch) {}
  std::vector<Work> take() { return std::move(all_); }

  // Square windows too. begin: padding above and to the left; end: below and to the right.
  struct Conv {
    int64_t from, to, kernel, stride, begin, end;
  };
  // input_grad: false where the net's own input is meant.
  void conv(const Conv&, int64_t size, bool input_grad = true);
  // Of the same size as its input.
  void conv(int64_t from, int64_t to, int64_t kernel, int64_t size, bool input_grad = true) {
    conv({from, to, kernel, 1, kernel / 2, kernel / 2}, size, input_grad);
  }
  void linear(int64_t from, int64_t to);
  void attention(int64_t channels, int64_t size);

  // Of tokens [batch, tokens, channels].
  void token_linear(int64_t tokens, int64_t from, int64_t to);
  void token_attention(int64_t queries, int64_t keys, int64_t channels, int64_t heads, bool causal = false);
  void layer_norm(int64_t tokens, int64_t channels);
  void geglu(int64_t tokens, int64_t channels);
  void token_embedding(int64_t words, int64_t tokens, int64_t channels);  // with their positions

  void batch_norm(int64_t channels, int64_t size);
  void group_norm(int64_t channels, int64_t size);  // alone and with a SiLU

  void max_pool(int64_t channels, int64_t size);
  void average_pool(int64_t channels, int64_t size);  // of the whole image
  void upsample(int64_t channels, int64_t size);      // to twice the size
  void concat(int64_t first, int64_t second, int64_t size);
  void halves(int64_t features);  // the two halves of rows, taken apart
  void scale_shift(int64_t channels, int64_t size, bool scale);

  // A program of `inputs` tensors, of images or of rows.
  void elementwise(const char* what, int inputs, const std::vector<EltInstruction>& code, int64_t channels,
                   int64_t size);
  void elementwise_rows(const char* what, int inputs, const std::vector<EltInstruction>& code,
                        int64_t features);
  void dropout(int64_t features);
  void reorder(int64_t channels, int64_t size);  // nhwc to plain, and back
  void cast(int64_t features);                   // to bf16, and back

  void pixels(int64_t channels, int64_t size);
  void augment(int64_t channels, int64_t size);
  void log_softmax(int64_t classes);
  void loss(int64_t classes, const LossParams& p);

  void noise(int64_t channels, int64_t size);  // the loss of a diffusion model too
  void time_embedding(int64_t width);
  void class_embedding(int64_t classes, int64_t width);  // with labels dropped

  // With a copy in bf16 and without one.
  void optimizer(int64_t parameters, OptimizerParams p);

 private:
  Shape image(int64_t channels, int64_t size) const { return {n_, channels, size, size}; }
  Work& add(const char* op, std::string shape, Params p, std::vector<TensorSpec> in,
            std::vector<TensorSpec> out, const std::vector<int>& batch_in, const std::vector<int>& batch_out,
            double flops);
  Work& add_elementwise(std::string text, int inputs, const std::vector<EltInstruction>& code,
                        const TensorSpec& x);

  std::string net_;
  int64_t n_;
  std::vector<Work> all_;
};

}  // namespace lockstep
