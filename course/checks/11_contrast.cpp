// Judges exercise 11: the numbers of the page, chance, and the library's functions.
#include <cmath>

#include "course/checks/judge.h"
#include "mtcki/evaluation/metrics.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/softmax.h"
#include "tensor/rng.h"

namespace mtcki::course {

namespace {

void check(Judge& judge) {
  // u = v = the two unit vectors: cosine 1 with the own partner, 0 with the other.
  const Variable unit(Tensor::from(std::vector<float>{1, 0, 0, 1}, {2, 2}), true);
  judge.equal("two orthogonal pairs, tau 1: ln(1 + 1/e)", contrast(unit, unit, 1).item(), 0.313262,
              1e-5);
  judge.equal("the same at tau 0.1", contrast(unit, unit, 0.1).item(), 0.0000454, 1e-6);
  const Variable alike(normalize(Tensor::full({8, 4}, 1.0)));
  judge.equal("rows that are all alike: chance, ln 8", contrast(alike, alike, 0.1).item(),
              std::log(8.0), 1e-5);

  const Variable u = Variable(normalize(randn({6, 5}, Rng{11, 1, 0})), true);
  const Variable v = Variable(normalize(randn({6, 5}, Rng{11, 2, 0})), true);
  const Tensor weights = Tensor::full({6}, 1.0 / 6);
  const Variable known = info_nce(u, v, 0.2, weights);
  const Variable mine = contrast(u, v, 0.2);
  judge.equal("random rows as the library's info_nce has them", mine.item(), known.item(), 1e-4);
  known.backward();
  const Tensor wanted = u.grad().clone();
  Variable(u).zero_grad();
  mine.backward();
  judge.close("and its gradient with respect to u", u.grad(), wanted, 1e-4);

  judge.equal("diversity of equal rows", diversity(Tensor::full({4, 3}, 2.0)), 0, 1e-5);
  judge.equal("of two orthogonal rows", diversity(unit.data()), 1, 1e-5);
  judge.equal("of two opposite rows",
              diversity(Tensor::from(std::vector<float>{3, 0, -1, 0}, {2, 2})), 2, 1e-5);
  const Tensor rows = add(randn({50, 8}, Rng{11, 3, 0}), 1.0);
  judge.equal("of 50 rows as the library's metric has it", diversity(rows),
              pairwise_diversity(rows), 1e-4);
}

const Chapter chapter(11, "Contrast and diversity", check);

}  // namespace

}  // namespace mtcki::course
