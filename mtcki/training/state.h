// State: what a part of a stage needs to go on exactly, named once for both directions.
//
//   void visit(State& s) {
//     s("step", step_);            // numbers, texts, lists, structs that JSON can hold
//     s("optim", *optimizer_);     // whatever has state_dict() and load_state_dict()
//     s("bn", bn_);                // whatever has a visit() of its own
//     s("latents", latents_);      // tensors, into the memory that they have
//     if (s.loading()) ...         // what follows from the rest
//   }
#pragma once

#include <string>

#include "mtcki/training/checkpoint.h"

namespace mtcki {

class State {
 public:
  static State saving(StageState& to) { return State(&to, nullptr, ""); }
  static State loading(const StageState& from) { return State(nullptr, &from, ""); }
  bool loading() const { return from_ != nullptr; }

  template <class T>
  void operator()(const std::string& name, T& part) {
    if constexpr (requires(State & s) { part.visit(s); }) {
      State inner(to_, from_, prefix_ + name + ".");
      part.visit(inner);
    } else if constexpr (requires { part.load_state_dict(part.state_dict()); }) {
      if (loading())
        part.load_state_dict(from_->take(prefix_ + name + "."));
      else
        to_->put(part.state_dict(), prefix_ + name + ".");
    } else if (loading()) {
      part = number(name).template get<T>();
    } else {
      to_->meta[prefix_ + name] = part;
    }
  }
  // A part whose visit() takes more than the state.
  template <class F>
  void within(const std::string& name, const F& visit) {
    State inner(to_, from_, prefix_ + name + ".");
    visit(inner);
  }
  // The number of the checkpoint, at the root; not read back.
  void step(int64_t number) {
    if (to_ && prefix_.empty()) to_->step = number;
  }
  // A tensor of this shape: loaded in place, where captured steps may know it.
  void operator()(const std::string& name, Tensor& tensor);
  // One that may be undefined. Loaded onto the device; in place when the shape is the same.
  void optional(const std::string& name, Tensor& tensor, Device device);

 private:
  State(StageState* to, const StageState* from, std::string prefix)
      : to_(to), from_(from), prefix_(std::move(prefix)) {}
  const nlohmann::json& number(const std::string& name) const;  // DataError when it is missing
  Tensor saved(const std::string& name) const;                  // undefined when it is missing

  StageState* to_;
  const StageState* from_;
  std::string prefix_;
};

// The same for a part as a whole, at the root.
template <class T>
void save(T& part, StageState& to) {
  State state = State::saving(to);
  part.visit(state);
}
template <class T>
void load(T& part, const StageState& from) {
  State state = State::loading(from);
  part.visit(state);
}

}  // namespace mtcki
