// placeholder so that the folder compiles before its first source
