# Precompiled headers: what the command, the trainer and the tests include in almost every file and nobody here edits (option parser, JSON,
# GoogleTest, libtorch) is parsed once for each kind of target. A file of the trainer compiles in half of the time. A source still includes
# what it uses: clang-tidy reads changed files without precompiled headers, and fails where one does not.
#   mneme_precompile(TARGET HEADER...)   TARGET gets a header of its own
#   mneme_precompile_as(TARGET OTHER)    TARGET uses that of OTHER, whose compile options must be the same; a program may share a library's,
#                                        as it is then compiled as position-independent as one
# The compiler refuses a precompiled header made with other options (-Winvalid-pch with -Werror), so that none is left aside unnoticed.
option(MNEME_PCH "Precompile the headers of other projects" ${PROJECT_IS_TOP_LEVEL})

# ccache must see which header was used (GCC), and finds the same header made elsewhere only if it holds no time (clang).
add_library(mneme_precompiled INTERFACE)
target_compile_options(mneme_precompiled INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>
                       # GCC 12 forgets which lines of a precompiled header are the system's, and warns of overruns in its own std::string.
                       $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-array-bounds> $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-stringop-overflow>
                       $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-stringop-overread>
                       "$<$<COMPILE_LANG_AND_ID:CXX,Clang>:SHELL:-Xclang -fno-pch-timestamp>")

function(mneme_precompile target)
  if(MNEME_PCH)
    target_precompile_headers(${target} PRIVATE ${ARGN})
    target_link_libraries(${target} PRIVATE mneme_precompiled)
  endif()
endfunction()

function(mneme_precompile_as target other)
  if(MNEME_PCH)
    target_precompile_headers(${target} REUSE_FROM ${other})
    target_link_libraries(${target} PRIVATE mneme_precompiled)
    get_target_property(kind ${other} TYPE)
    if(NOT kind STREQUAL EXECUTABLE)
      target_compile_options(${target} PRIVATE -fPIC)  # after CMake's -fPIE, and the last one counts
    endif()
  endif()
endfunction()
