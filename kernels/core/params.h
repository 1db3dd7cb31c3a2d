// SPDX-License-Identifier: Apache-2.0
// An op's parameters, type-erased: the graph carries them, kernels read them back.
//
// A parameter struct lives in its op's room (kernels/conv2d/conv2d.h) and has
//   std::string text() const;   // canonical: equal parameters print equal text. It is part of the
//                               // kernel-choice key and of the plan's hash, so floats are printed
//                               // with all their digits ({} of fmt does).
#pragma once

#include <memory>
#include <string>
#include <typeinfo>
#include <utility>

#include "kernels/core/error.h"

namespace lockstep {

class Params {
 public:
  Params() = default;
  template <class T>
  requires(!std::is_same_v<std::remove_cvref_t<T>, Params>) Params(T&& value)  // NOLINT: implicit on purpose
      : holder_(std::make_shared<Holder<std::remove_cvref_t<T>>>(std::forward<T>(value))) {}

  template <class T>
  const T& as() const {
    auto* h = dynamic_cast<const Holder<T>*>(holder_.get());
    LOCKSTEP_ASSERT(h != nullptr, "parameters are not a {}", typeid(T).name());
    return h->value;
  }
  bool empty() const { return holder_ == nullptr; }
  std::string text() const { return holder_ ? holder_->text() : std::string(); }

 private:
  struct Base {
    virtual ~Base() = default;
    virtual std::string text() const = 0;
  };
  template <class T>
  struct Holder final : Base {
    explicit Holder(T v) : value(std::move(v)) {}
    std::string text() const override { return value.text(); }
    T value;
  };
  std::shared_ptr<const Base> holder_;
};

}  // namespace lockstep
