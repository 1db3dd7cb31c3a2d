// SPDX-License-Identifier: Apache-2.0
// The reference of all job keys, as text and as Markdown, from the tables.
#include <fmt/ranges.h>

#include "launch/job/keys.h"
#include "launch/job/write.h"

namespace lockstep {

namespace {

using Row = job::ReferenceRow;
using Section = job::ReferenceSection;

std::string fallback_text(const job::Key& key, const job::Slot& slot) {
  if (key.required) return "required";
  return key.absent.empty() ? job::flow_text(slot) : key.absent;
}

std::vector<Row> rows_of(const job::Table& table, void* defaults) {
  std::vector<Row> rows;
  for (const job::Key& key : table) {
    const job::Slot slot = key.slot(defaults);
    Row row = {key.path, job::type_text(key, slot), fallback_text(key, slot), key.help, key.example};
    if (const std::string range = key.range.text(); !range.empty()) row.type += ", " + range;
    if (!key.when.key.empty()) row.help += fmt::format(" With {} only.", key.when.text());
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string wrapped(const std::string& text, size_t indent, size_t width) {
  std::string out, line;
  const auto flush = [&] {
    if (!line.empty()) out += fmt::format("{:{}}{}\n", "", indent, line);
    line.clear();
  };
  for (size_t start = 0; start < text.size();) {
    size_t end = text.find(' ', start);
    if (end == std::string::npos) end = text.size();
    const std::string word = text.substr(start, end - start);
    if (!line.empty() && indent + line.size() + 1 + word.size() > width) flush();
    line += (line.empty() ? "" : " ") + word;
    start = end + 1;
  }
  flush();
  return out;
}

std::string as_text(const std::vector<Section>& all) {
  constexpr size_t kWidth = 100;
  std::string out;
  for (const Section& section : all) {
    out += section.title + "\n";
    out += wrapped(section.note, 2, kWidth);
    for (const Row& row : section.rows) {
      std::string head = "  " + row.key;
      if (!row.type.empty()) head += fmt::format("  ({})", row.type);
      if (!row.fallback.empty())
        head += row.fallback == "required" ? "  required" : "  left out: " + row.fallback;
      out += head + "\n" + wrapped(row.help, 6, kWidth);
      if (!row.example.empty()) out += wrapped("e.g. " + row.example, 6, kWidth);
    }
    out += "\n";
  }
  out +=
      "Changes for one run: --set KEY.PATH=VALUE, for example --set hyperparameters.optimizer.lr=0.1. Lists "
      "and\n"
      "maps in YAML's flow syntax, relative paths against the current directory. A key that excludes "
      "another\n"
      "replaces it; of one key the last --set counts.\n";
  return out;
}

std::string code(const std::string& text) { return text.empty() ? "" : "`" + text + "`"; }

std::string cell(std::string text) {
  for (size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, "\\");
  return text;
}

std::string as_markdown(const std::vector<Section>& all) {
  std::string out;
  for (const Section& section : all) {
    out += fmt::format("## {}\n\n", section.title);
    if (!section.note.empty()) out += section.note + "\n\n";
    out += "| key | type | left out | meaning | example |\n| --- | --- | --- | --- | --- |\n";
    for (const Row& row : section.rows)
      out += fmt::format("| {} | {} | {} | {} | {} |\n", code(row.key), cell(row.type), cell(row.fallback),
                         cell(row.help), code(cell(row.example)));
    out += "\n";
  }
  return out;
}

}  // namespace

std::vector<Section> job::reference_sections() {
  Job job;
  DatasetConfig dataset;
  ParamGroupConfig group;
  std::vector<Section> all;
  all.push_back({"Job", "A dot stands for a level: `output.dir: runs` is written `output: {dir: runs}`.",
                 rows_of(job_keys(), &job)});
  all.push_back({"Data sets", "Keys of inputs.training, inputs.validation and inputs.test.",
                 rows_of(dataset_keys(), &dataset)});
  all.push_back({"Augmentation",
                 "Keys of inputs.training alone. Drawn by seed, step (captions: epoch) and sample, whatever "
                 "the rank count.",
                 rows_of(augment_keys(), &dataset)});
  all.push_back({"Parameter groups", "Keys of each item of hyperparameters.param_groups.",
                 rows_of(group_keys(), &group)});
  UNet2DConfig unet;
  all.push_back({"UNet", "Keys of model.config of the model unet2d.", rows_of(unet_keys(), &unet)});
  UNet2DConditionConfig unet_condition;
  all.push_back({"UNet that reads text", "Keys of model.unet of the model text_to_image.",
                 rows_of(unet_condition_keys(), &unet_condition)});
  ClipTextConfig text_encoder;
  all.push_back({"Text encoder", "Keys of model.text_encoder of the model text_to_image.",
                 rows_of(clip_text_keys(), &text_encoder)});
  AutoencoderKlConfig vae;
  all.push_back({"VAE", "Keys of model.vae of the model text_to_image.", rows_of(autoencoder_keys(), &vae)});
  Section layers = {
      "Layers",
      "Items of model.layers. A layer without required keys may stand as a word alone. kernel, stride, "
      "padding, dilation, output: one number or [height, width].",
      {}};
  for (const LayerWord& word : layer_words()) {
    layers.rows.push_back({word.word, "layer", "", word.help, word.example});
    LayerSpec defaults = word.prototype;
    for (Row row : rows_of(word.keys, &defaults)) {
      if (row.key == "name") continue;
      row.key = word.word + "." + row.key;
      layers.rows.push_back(std::move(row));
    }
  }
  LayerSpec any = layer_words().front().prototype;
  for (Row row : rows_of(layer_words().front().keys, &any))
    if (row.key == "name") layers.rows.push_back(std::move(row));
  all.push_back(std::move(layers));
  Section refused = {"Refused names", "", {}};
  for (const RefusedKey& key : refused_keys()) refused.rows.push_back({key.name, "", "", key.message, ""});
  all.push_back(std::move(refused));
  return all;
}

std::string key_reference(bool markdown) {
  return markdown ? as_markdown(job::reference_sections()) : as_text(job::reference_sections());
}

}  // namespace lockstep
