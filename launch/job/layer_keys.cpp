// SPDX-License-Identifier: Apache-2.0
// The words of `model.layers` and their keys.
#include "launch/job/keys.h"

namespace lockstep::job {
namespace {

template <class L, auto member>
Slot slot_of(void* object) {
  return &(std::get<L>(static_cast<LayerSpec*>(object)->kind).*member);
}

Slot name_slot(void* object) { return &static_cast<LayerSpec*>(object)->name; }

constexpr Range kCount = {1, 1 << 24};
constexpr Range kExtent = {1, 65535};  // kernel, stride, dilation, output
constexpr Range kPadding = {0, 65535};
constexpr Range kPositive = {0, 1, true, false};

template <class L>
LayerWord word(std::string name, std::string help, std::string example, L prototype, Table keys) {
  keys.push_back({.path = "name",
                  .slot = name_slot,
                  .help = "In tensor names, instead of the layer's index.",
                  .example = "stem",
                  .text = Text::identifier,
                  .absent = "its index, as in nn.Sequential"});
  LayerSpec spec;
  spec.kind = std::move(prototype);
  spec.type = name;
  return {std::move(name), std::move(help), std::move(example), std::move(spec), std::move(keys)};
}

template <class L>
Key kernel_key(bool short_form) {
  return {.path = "kernel",
          .slot = slot_of<L, &L::kernel>,
          .help = "Extent of the window.",
          .example = "3",
          .range = kExtent,
          .required = true,
          .short_form = short_form};
}
template <class L>
Key padding_key() {
  return {.path = "padding",
          .slot = slot_of<L, &L::padding>,
          .help = "Added on each side.",
          .example = "1",
          .range = kPadding};
}
template <class L>
Key dilation_key() {
  return {.path = "dilation",
          .slot = slot_of<L, &L::dilation>,
          .help = "Distance of the window's elements.",
          .example = "2",
          .range = kExtent};
}
template <class L>
Key pool_stride_key() {
  return {.path = "stride",
          .slot = slot_of<L, &L::stride>,
          .help = "Distance of the windows.",
          .example = "2",
          .range = kExtent,
          .absent = "the kernel"};
}
template <class L>
Key ceil_key() {
  return {.path = "ceil_mode",
          .slot = slot_of<L, &L::ceil_mode>,
          .help = "Round the output's extent up, not down.",
          .example = "true"};
}
template <class L>
Key bias_key() {
  return {.path = "bias", .slot = slot_of<L, &L::bias>, .help = "Whether it has one.", .example = "false"};
}
template <class L>
Key eps_key() {
  return {.path = "eps",
          .slot = slot_of<L, &L::eps>,
          .help = "Added to the variance.",
          .example = "1e-3",
          .range = kPositive};
}
Key probability_key() {
  return {.path = "p",
          .slot = slot_of<layer::Dropout, &layer::Dropout::p>,
          .help = "Probability of a zero.",
          .example = "0.25",
          .range = {0, 1, false, true},
          .short_form = true};
}

std::vector<LayerWord> make_layer_words() {
  using namespace layer;
  std::vector<LayerWord> words;
  words.push_back(word("conv2d", "Convolution.", "conv2d: {out_channels: 16, kernel: 3, padding: 1}",
                       Conv2d{},
                       {{.path = "out_channels",
                         .slot = slot_of<Conv2d, &Conv2d::out_channels>,
                         .help = "Channels that it makes.",
                         .example = "16",
                         .range = kCount,
                         .required = true},
                        {.path = "in_channels",
                         .slot = slot_of<Conv2d, &Conv2d::in_channels>,
                         .help = "Checked against the input.",
                         .example = "8",
                         .range = kCount,
                         .absent = "the input's"},
                        kernel_key<Conv2d>(false),
                        {.path = "stride",
                         .slot = slot_of<Conv2d, &Conv2d::stride>,
                         .help = "Distance of the windows.",
                         .example = "2",
                         .range = kExtent},
                        padding_key<Conv2d>(),
                        dilation_key<Conv2d>(),
                        {.path = "groups",
                         .slot = slot_of<Conv2d, &Conv2d::groups>,
                         .help = "Channel groups that don't see each other; divides both channel counts.",
                         .example = "4",
                         .range = kCount},
                        bias_key<Conv2d>()}));
  words.push_back(word("linear", "Fully connected layer.", "linear: {out_features: 10}", Linear{},
                       {{.path = "out_features",
                         .slot = slot_of<Linear, &Linear::out_features>,
                         .help = "Features that it makes.",
                         .example = "10",
                         .range = kCount,
                         .required = true},
                        {.path = "in_features",
                         .slot = slot_of<Linear, &Linear::in_features>,
                         .help = "Checked against the input.",
                         .example = "320",
                         .range = kCount,
                         .absent = "the input's"},
                        bias_key<Linear>()}));
  words.push_back(word("max_pool2d", "Largest value of each window.", "max_pool2d: 2", MaxPool2d{},
                       {kernel_key<MaxPool2d>(true), pool_stride_key<MaxPool2d>(), padding_key<MaxPool2d>(),
                        dilation_key<MaxPool2d>(), ceil_key<MaxPool2d>()}));
  words.push_back(word("avg_pool2d", "Mean of each window.", "avg_pool2d: {kernel: 3, stride: 2}",
                       AvgPool2d{},
                       {kernel_key<AvgPool2d>(true),
                        pool_stride_key<AvgPool2d>(),
                        padding_key<AvgPool2d>(),
                        ceil_key<AvgPool2d>(),
                        {.path = "count_include_pad",
                         .slot = slot_of<AvgPool2d, &AvgPool2d::count_include_pad>,
                         .help = "Whether padding counts in the mean.",
                         .example = "false"}}));
  words.push_back(word("adaptive_avg_pool2d",
                       "Mean of windows chosen so that the output has the extent asked for.",
                       "adaptive_avg_pool2d: 1", AdaptiveAvgPool2d{},
                       {{.path = "output",
                         .slot = slot_of<AdaptiveAvgPool2d, &AdaptiveAvgPool2d::output>,
                         .help = "Extent of the output.",
                         .example = "1",
                         .range = kExtent,
                         .required = true,
                         .short_form = true}}));
  for (const char* kind : {"relu", "silu", "gelu", "tanh", "sigmoid"})
    words.push_back(word(kind, "Activation.", kind, Activation{kind}, {}));
  words.push_back(word("dropout", "Zeroes elements while training.", "dropout: 0.25", Dropout{0.5, false},
                       {probability_key()}));
  words.push_back(word("dropout2d", "Zeroes whole channels while training.", "dropout2d: 0.25",
                       Dropout{0.5, true}, {probability_key()}));
  words.push_back(word("batch_norm2d", "Batch normalisation; statistics over the global batch.",
                       "batch_norm2d", BatchNorm2d{},
                       {eps_key<BatchNorm2d>(),
                        {.path = "momentum",
                         .slot = slot_of<BatchNorm2d, &BatchNorm2d::momentum>,
                         .help = "Share of a batch in the running statistics.",
                         .example = "0.01",
                         .range = {0, 1}}}));
  words.push_back(word("group_norm", "Group normalisation.", "group_norm: 8", GroupNorm{},
                       {{.path = "groups",
                         .slot = slot_of<GroupNorm, &GroupNorm::groups>,
                         .help = "Channel groups that are normalised together; divides the channels.",
                         .example = "8",
                         .range = kCount,
                         .required = true,
                         .short_form = true},
                        eps_key<GroupNorm>()}));
  words.push_back(word("self_attention2d",
                       "Attention between all pixels: x + to_out(attention(group_norm(x))).",
                       "self_attention2d: {heads: 4, groups: 8}", SelfAttention2d{},
                       {{.path = "heads",
                         .slot = slot_of<SelfAttention2d, &SelfAttention2d::heads>,
                         .help = "Attentions side by side; divides the channels.",
                         .example = "4",
                         .range = kCount,
                         .short_form = true},
                        {.path = "groups",
                         .slot = slot_of<SelfAttention2d, &SelfAttention2d::groups>,
                         .help = "Channel groups of its group norm; divides the channels.",
                         .example = "8",
                         .range = kCount},
                        eps_key<SelfAttention2d>()}));
  words.push_back(word("flatten", "All but the batch in one dimension.", "flatten", Flatten{}, {}));
  words.push_back(word("log_softmax", "Log-probabilities.", "log_softmax", LogSoftmax{}, {}));
  words.push_back(word("residual", "layers(x) + shortcut(x).",
                       "residual: {layers: [{conv2d: {out_channels: 8, kernel: 3, padding: 1}}, relu]}",
                       Residual{},
                       {{.path = "layers",
                         .slot = slot_of<Residual, &Residual::layers>,
                         .help = "What is added to the input.",
                         .example = "[{conv2d: {out_channels: 8, kernel: 3, padding: 1}}, relu]",
                         .required = true},
                        {.path = "shortcut",
                         .slot = slot_of<Residual, &Residual::shortcut>,
                         .help = "What the input goes through first.",
                         .example = "[{conv2d: {out_channels: 8, kernel: 1}}]",
                         .absent = "nothing: the input itself"}}));
  return words;
}

}  // namespace

const std::vector<LayerWord>& layer_words() {
  static const std::vector<LayerWord> words = make_layer_words();
  return words;
}

const LayerWord* find_layer_word(std::string_view word) {
  for (const LayerWord& row : layer_words())
    if (row.word == word) return &row;
  return nullptr;
}

}  // namespace lockstep::job
