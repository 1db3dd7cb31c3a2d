// SPDX-License-Identifier: Apache-2.0
#include "launch/job/tokenizer.h"

namespace lockstep {
namespace {

// The text encoder has a row for each of its numbers, and a place for each of its tokens.
void expect_of_encoder(const ClipTokenizer& tokenizer, const TextToImageConfig& config) {
  const auto refuse = [&](std::string message) {
    return Error(Exit::config, "E_TOKENIZER_MODEL", std::move(message)).at("folder", tokenizer.folder());
  };
  if (tokenizer.vocabulary_size() > config.text_encoder.vocab_size)
    throw refuse(fmt::format("the tokenizer has {} tokens, the text encoder's vocab_size is {}",
                             tokenizer.vocabulary_size(), config.text_encoder.vocab_size));
  if (tokenizer.length() != config.text_length)
    throw refuse(
        fmt::format("the tokenizer makes {} tokens of a text (model_max_length), the text encoder "
                    "takes {} (max_position_embeddings)",
                    tokenizer.length(), config.text_length));
}

}  // namespace

std::shared_ptr<const ClipTokenizer> open_tokenizer(const Job& job) {
  const TextToImageConfig& config = job.model.text_to_image;
  if (!job.model.reads_text()) return nullptr;
  try {
    auto tokenizer = std::make_shared<const ClipTokenizer>(config.tokenizer);
    expect_of_encoder(*tokenizer, config);
    return tokenizer;
  } catch (Error& e) {
    const std::string key = "model.tokenizer";
    e.add_place("job", job.where.contains(key) ? job.where.at(key) : job.file);
    e.add_place("key", key);
    throw;
  }
}

std::shared_ptr<const ClipTokenizer> open_tokenizer(const ModelDescription& model,
                                                    const std::string& folder) {
  if (!model.model.reads_text()) return nullptr;
  auto tokenizer = std::make_shared<const ClipTokenizer>(folder + "/tokenizer");
  expect_of_encoder(*tokenizer, model.model.text_to_image);
  if (const auto hash = model.data.find("tokenizer");
      hash != model.data.end() && hash->second != tokenizer->content_hash())
    throw Error(Exit::data, "E_TOKENIZER_MODEL", "is not the tokenizer that the model was trained with")
        .at("folder", tokenizer->folder())
        .hint("model.json has its hash");
  return tokenizer;
}

}  // namespace lockstep
