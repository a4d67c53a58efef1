// Pages of a profile, of two side by side and of a sweep: what `mtcki profile --html` writes.
#pragma once

#include <string>

#include "mtcki/profile/profile.h"
#include "mtcki/profile/sweep.h"

namespace mtcki {

std::string profile_page(const Profile& profile);
std::string profile_diff_page(const Profile& before, const Profile& after);
std::string sweep_page(const Sweep& sweep);

// Their figures, of which the report shows the first two. axes: another profile whose points the
// axes have room for, too; may be null.
std::string op_bars(const Profile& profile);
std::string roofline_figure(const Profile& profile, const Profile* axes = nullptr);
std::string timeline_figure(const Profile& profile);
std::string memory_figure(const Profile& profile);

}  // namespace mtcki
