// SPDX-License-Identifier: Apache-2.0
#include "runtime/checkpoint/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "kernels/core/error.h"

namespace lockstep {
namespace {

// Fed by the parser as it reads: no tree is built, so depth costs nothing and duplicates are seen.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(size_t offset, const std::string& path) : offset_(offset), path_(path) {}
  SafetensorsHeader take() { return std::move(header_); }

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { return unexpected(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return unexpected(text); }
  bool binary(binary_t&) override { return unexpected("binary"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (depth_ != 3) return unexpected(std::to_string(value));
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return unexpected(std::to_string(value));
    array_.push_back(value);
    return true;
  }
  bool string(string_t& value) override {
    if (depth_ != 2) return unexpected(fmt::format("\"{}\"", value));
    if (in_metadata_)
      header_.metadata.emplace(field_, value);
    else if (field_ == "dtype")
      header_.tensors.back().dtype = value;
    else
      return unexpected(fmt::format("\"{}\"", value));
    return true;
  }
  bool start_object(size_t) override {
    if (depth_ > 1) return unexpected("an object");
    if (++depth_ == 2) {
      in_metadata_ = name_ == "__metadata__";
      if (!in_metadata_) header_.tensors.push_back({name_, {}, {}, 0, 0});
    }
    return true;
  }
  bool key(string_t& value) override {
    auto& seen = depth_ == 1 ? names_ : fields_;
    if (!seen.insert(value).second) throw bad(fmt::format("duplicate key \"{}\"", value));
    if (depth_ == 1) {
      name_ = value;
    } else {
      field_ = value;
      if (!in_metadata_ && value != "dtype" && value != "shape" && value != "data_offsets")
        throw bad(fmt::format("expected the keys dtype, shape and data_offsets, found \"{}\"", value));
    }
    return true;
  }
  bool end_object() override {
    if (--depth_ == 1) {
      if (!in_metadata_ && fields_.size() != 3)
        throw bad(
            fmt::format("expected the keys dtype, shape and data_offsets, found {} of them", fields_.size()));
      fields_.clear();
      field_.clear();
      name_.clear();
    }
    return true;
  }
  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata_ || field_ == "dtype") return unexpected("an array");
    ++depth_;
    array_.clear();
    return true;
  }
  bool end_array() override {
    --depth_;
    auto& tensor = header_.tensors.back();
    if (field_ == "shape") {
      tensor.shape.assign(array_.begin(), array_.end());
    } else {
      if (array_.size() != 2)
        throw bad(fmt::format("data_offsets: expected 2 numbers, found {}", array_.size()));
      tensor.begin = array_[0];
      tensor.end = array_[1];
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& e) override {
    const std::string what =
        e.what();  // "[json.exception.parse_error.101] parse error at ...: syntax error ..."
    const size_t prefix = what.find("] ");
    throw Error(Exit::data, "E_SAFETENSORS",
                "header: " + (prefix == std::string::npos ? what : what.substr(prefix + 2)))
        .at("file", path_)
        .at("offset", static_cast<int64_t>(offset_ + (position > 0 ? position - 1 : 0)));
  }

 private:
  Error bad(const std::string& message) const {
    Error error(Exit::data, "E_SAFETENSORS", "header: " + message);
    error.add_place("file", path_);
    if (!name_.empty()) error.add_place("tensor", name_);
    return error;
  }
  bool unexpected(const std::string& found) const {
    const char* expected = depth_ == 0                         ? "an object"
                           : depth_ == 1                       ? "an object"
                           : depth_ == 3                       ? "a number from 0 to 2^63 - 1"
                           : in_metadata_ || field_ == "dtype" ? "a string"
                                                               : "an array of numbers";
    throw bad(fmt::format("{}expected {}, found {}", field_.empty() ? "" : field_ + ": ", expected, found));
  }

  size_t offset_;
  const std::string& path_;
  SafetensorsHeader header_;
  int depth_ = 0;  // 1: the header, 2: a tensor or the metadata, 3: shape or data_offsets
  bool in_metadata_ = false;
  std::string name_, field_;
  std::unordered_set<std::string> names_, fields_;
  std::vector<uint64_t> array_;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> json, size_t offset,
                                           const std::string& path) {
  HeaderReader reader(offset, path);
  const char* begin = reinterpret_cast<const char*>(json.data());
  nlohmann::json::sax_parse(begin, begin + json.size(), &reader);
  return reader.take();
}

}  // namespace lockstep
