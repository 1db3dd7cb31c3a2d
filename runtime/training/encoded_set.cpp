// SPDX-License-Identifier: Apache-2.0
#include "runtime/training/encoded_set.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "runtime/checkpoint/file_io.h"
#include "runtime/comm/whereabouts.h"
#include "runtime/data/cache.h"
#include "runtime/data/hash.h"
#include "runtime/data/sample_order.h"
#include "runtime/files/build_id.h"
#include "runtime/training/state_io.h"

namespace lockstep {
namespace {

constexpr const char *kImageRows = "images", *kTextRows = "texts", *kKey = "key", *kChecksum = "checksum";

// One encoder's work: inputs are written one by one.
struct Encoding {
  const Program& program;
  Port input;  // of a graph for one sample
  std::string output;
  EncodedRows& rows;
  std::function<void(int64_t i, std::byte* to)> write;
};

// Each rank computes its share, a batch at a time, and hands it to the others before the next: nobody waits for long. All
// batches are of one size, as in training, where a kernel's last bits may depend on it: the last is filled up.
void encode(Session& session, const Encoding& e, int64_t batch) {
  Communicator& comm = session.control();
  const auto share = [&](int rank) { return slice_of(e.rows.count(), comm.size(), rank); };
  const Slice mine = share(comm.rank());
  const int64_t input_bytes = e.input.spec.bytes();
  float* const rows = e.rows.allocate();
  std::vector<std::byte> inputs(static_cast<size_t>(batch * input_bytes));
  session.prepare(e.program, batch);
  auto& compiled = session.program(e.program, batch);
  for (int64_t done = 0; done < share(0).size(); done += batch) {  // rank 0's is no smaller than another
    const auto part = [&](const Slice& of) {
      return Slice{std::min(of.begin + done, of.end), std::min(of.begin + done + batch, of.end)};
    };
    if (const Slice now = part(mine); now.size() > 0) {
      for (int64_t i = 0; i < batch; ++i)
        e.write(std::min(now.begin + i, now.end - 1), inputs.data() + i * input_bytes);
      StepInputs in;
      in.state.training = 0;
      in.set({e.input.name, e.input.spec.dtype, inputs.data(), batch * input_bytes});
      session.executor().run(*compiled.bound, in);
      std::copy_n(session.executor().output(*compiled.bound, e.output).as<float>(),
                  now.size() * e.rows.floats(), rows + now.begin * e.rows.floats());
    }
    for (int rank = 0; rank < comm.size(); ++rank) {
      const Slice theirs = part(share(rank));
      const std::span<float> values(rows + theirs.begin * e.rows.floats(),
                                    static_cast<size_t>(theirs.size() * e.rows.floats()));
      if (!values.empty()) comm.broadcast(std::as_writable_bytes(values), rank);
    }
  }
}

// What decides the rows beside the set: the frozen weights, and how this build's kernels read them.
std::string key_of(Session& session, const std::vector<Program>& encoders, const std::string& inputs,
                   int64_t batch) {
  std::string text =
      build_id() + " " + inputs + "\n" + std::to_string(session.options().kernels.threads) + "\n";
  for (const Program& p : encoders) {
    session.prepare(p, batch);
    const Graph& graph = session.program(p, batch).plan->graph;
    for (const Node& n : graph.nodes())
      if (n.kind == NodeKind::compute) text += kernel_signature(graph, n) + " " + n.kernel + "\n";
  }
  const ModelState& model = session.model();
  for (const FlatEntry& e : model.table.parameters)
    if (!model.table.trains(e))
      text += fmt::format("{} {} {:016x}\n", e.name, e.shape.text(),
                          checksum(model.parameters.as<float>() + e.begin,
                                   static_cast<size_t>(e.shape.elements()) * sizeof(float)));
  return sha256_hex(std::as_bytes(std::span(text)));
}

StoredTensor stored_rows(const char* name, const EncodedRows& rows) {
  return {name, "F32", {rows.count(), rows.floats()}, rows.bytes()};
}

std::string checksum_of(std::span<const StoredTensor> tensors) {
  std::string all;
  for (const StoredTensor& t : tensors)
    all += fmt::format("{} {:016x} ", t.name, checksum(t.bytes.data(), t.bytes.size()));
  return all;
}

}  // namespace

float* EncodedRows::allocate() {
  own_ = AlignedBuffer(count_ * floats_ * static_cast<int64_t>(sizeof(float)));
  auto* const rows = own_.as<float>();
  data_ = rows;
  return rows;
}

void EncodedSet::copy_pixels(int64_t /*epoch*/, int64_t i, uint8_t* to) const {
  std::memcpy(to, images_.row(i).data(), static_cast<size_t>(sample_bytes()));
}

EncodedSet::EncodedSet(Session& session, std::shared_ptr<const SampleSource> set,
                       const ClipTokenizer* tokenizer, bool hides_captions, int64_t batch)
    : set_(std::move(set)) {
  const std::vector<Program> encoders = session.options().objective->encoders();
  std::vector<std::string> captions;
  std::vector<Encoding> work;
  for (const Program& p : encoders) {
    const Graph one = build_program(p, {});
    const std::vector<Port> in = input_ports(one), out = output_ports(one);
    LOCKSTEP_ASSERT(in.size() == 1 && out.size() == 1, "{} is no encoder", p.name);
    const int64_t floats = out[0].spec.shape.elements();
    if (in[0].name == kTokens) {
      std::set<std::string> all;
      if (hides_captions) all.insert("");
      for (int64_t i = 0; i < count(); ++i)
        for (std::string& caption : captions_of(0, i)) all.insert(std::move(caption));
      captions.assign(all.begin(), all.end());
      for (const std::string& caption : captions) rows_.emplace(caption, static_cast<int64_t>(rows_.size()));
      texts_ = EncodedRows(static_cast<int64_t>(captions.size()), floats);
      work.push_back({p, in[0], out[0].name, texts_, [&captions, tokenizer](int64_t i, std::byte* to) {
                        tokenizer->tokens(
                            captions[static_cast<size_t>(i)],
                            {reinterpret_cast<int32_t*>(to), static_cast<size_t>(tokenizer->length())},
                            SpecialTokens::as_text);
                      }});
    } else {
      images_ = EncodedRows(count(), floats);
      work.push_back({p, in[0], out[0].name, images_, [this](int64_t i, std::byte* to) {
                        set_->copy_pixels(0, i, reinterpret_cast<uint8_t*>(to));
                      }});
    }
  }
  channels = images_.floats() * static_cast<int64_t>(sizeof(float)), height = width = 1;
  content_hash = set_->content_hash;

  std::string inputs = content_hash + (tokenizer ? " " + tokenizer->content_hash() : "");
  if (hides_captions) inputs += " and none";
  const std::string key = key_of(session, encoders, inputs, batch), folder = cache_folder(),
                    name = fmt::format("{}{}.safetensors", kLatentsFiles, content_hash.substr(0, 16)),
                    file = folder.empty() ? "" : folder + "/" + name;
  Communicator& comm = session.control();
  int64_t found = load(file, key);
  comm.allreduce(std::span(&found, 1), Reduce::min);
  if (found) {
    read_from_ = file;
    return;
  }
  file_ = nullptr;
  for (const Encoding& e : work) encode(session, e, batch);
  // One rank a host writes; the others then need no memory of their own.
  for (bool others : {false, true}) {
    if (others == (comm.rank() > 0) && !load(file, key)) {
      store(file, key);
      load(file, key);
    }
    comm.barrier();
  }
}

bool EncodedSet::load(const std::string& file, const std::string& key) {
  if (file.empty()) return false;
  try {
    const auto opened = SafetensorsFile::open(file);
    const auto said = [&](const char* name) {
      const auto found = opened->metadata().find(name);
      return found == opened->metadata().end() ? "" : found->second;
    };
    if (said(kKey) != key || said(kChecksum) != checksum_of(opened->tensors())) return false;
    const auto find = [&](const char* name, const EncodedRows& rows) -> const StoredTensor* {
      const StoredTensor* t = opened->find(name);
      return t && t->dtype == "F32" && t->shape == std::vector<int64_t>{rows.count(), rows.floats()}
                 ? t
                 : nullptr;
    };
    const StoredTensor *images = find(kImageRows, images_), *texts = find(kTextRows, texts_);
    if (!images || !texts) return false;
    images_.view(reinterpret_cast<const float*>(images->bytes.data()));
    texts_.view(reinterpret_cast<const float*>(texts->bytes.data()));
    file_ = opened;
    note_use(file);
    return true;
  } catch (const Error&) {  // not there, or damaged: it is made anew
    return false;
  }
}

void EncodedSet::store(const std::string& file, const std::string& key) const {
  if (file.empty()) return;
  const OwnWork own("writing what frozen networks made of the training set");
  const std::vector<StoredTensor> tensors = {stored_rows(kImageRows, images_),
                                             stored_rows(kTextRows, texts_)};
  try {
    make_cache_folder(parent_folder(file));
    replace_file(file, [&](const std::string& temporary) {
      write_safetensors(temporary, tensors, {{kKey, key}, {kChecksum, checksum_of(tensors)}});
    });
  } catch (const Error& e) {
    log_not_kept("what frozen networks made of the training set", e);
  }
}

}  // namespace lockstep
