"""Well-known passwords, in lower case: the first that are tried in every attack.

Only what has the 15 characters of production is of use here; what only repeats
a shorter text is found without a list.
"""

# Refused as they are.
KNOWN = frozenset(
    """
    012345678901234 0123456789012345 01234567890123456789 0123456789abcdef
    0987654321098765 098765432109876 100000000000000 111111111111112
    111222333444555 112233445566778 1122334455667788 112233445566778899
    123123123123123123 123454321012345 12345678900987654321 123456789012345
    1234567890123456 12345678901234567 123456789012345678 1234567890123456789
    12345678901234567890 1234567890abcdef 1234567890abcdefg 1234567890abcdefghij
    1234567890qwerty 1234567890qwertyuiop 123456789abcdef 123456789abcdefg
    123456789qwerty 123456789qwertyuiop 12345678987654321 123456qwertyuiop
    123456qwertyasdfgh 1234qwer1234qwer 1234qwerasdfzxcv 123qweasdzxc123
    123qweasdzxcrtyfgh 147258369147258 147258369741852963 1a2b3c4d5e6f7g8h
    1a2b3c4d5e6f7g8h9i0j 1q2w3e4r5t6y7u8 1q2w3e4r5t6y7u8i 1q2w3e4r5t6y7u8i9o
    1q2w3e4r5t6y7u8i9o0p 1qaz2wsx3edc4rf 1qaz2wsx3edc4rfv 1qaz2wsx3edc4rfv5tgb
    1qaz2wsx3edcrfv 1qazxsw23edcvfr4 321654987321654 741852963741852
    789456123789456 987654321012345 987654321098765 9876543210987654
    a1b2c3d4e5f6g7h a1b2c3d4e5f6g7h8 a1s2d3f4g5h6j7k8 abc123abc123abc
    abcd1234abcd123 abcdefg12345678 abcdefg123456789 abcdefgh12345678
    abcdefghij12345 asdf1234asdf123 asdfghjkl123456 asdfghjkl123456789
    p455w0rdp455w0rd p4ssw0rdp4ssw0rd p@ssw0rd1234567 p@ssw0rd12345678
    p@ssw0rd123456789 p@ssw0rdp@ssw0rd p@ssword1234567 p@ssword12345678
    pa55w0rdpa55w0rd passw0rd1234567 passw0rd12345678 passw0rd123456789
    password123password password123password123 password1password
    password1password2 password!password qazwsx123456789 qazwsxedc123456
    qwer1234asdf5678 qwer1234qwer123 qwerty123456789 qwerty1234567890
    qwerty123qwerty qwerty123qwerty123 qwertyuiop12345 qwertyuiop123456
    qwertyuiop123456789 qwertyuiop1234567890 zaq12wsxcde34rfv zaq1xsw2cde3vfr4
    zaq12wsxzaq12wsx zxcvbnm12345678 zxcvbnm123456789 !qaz2wsx#edc4rfv
    !qaz@wsx#edc$rfv
    """.split()  # noqa: SIM905 - as one reads and extends it
)

# Refused with any digits and signs around and within.
WORDS = frozenset(
    """
    abc abcd abcde abcdef abcdefg abcdefgh abcdefghi abcdefghij abcdefghijk
    abcdefghijkl abcdefghijklm abcdefghijklmn abcdefghijklmno abcdefghijklmnop
    abcdefghijklmnopq abcdefghijklmnopqrst abcdefghijklmnopqrstuvwxyz
    admin administrator administratoradministrator adminadmin adminpassword
    areyoukiddingme asdf asdfasdf asdfgh asdfghjkl asdfghjklqwertyuiop
    asdfghjklzxcvbnm azerty azertyuiop azertyuiopqsdfghjklm changeit changeme
    changemenow changemeplease changethispassword correcthorsebatterystaple
    defaultpassword donttellanyone dragon enterpassword forgetpassword
    forgotpassword fuckyou fuckyoufuckyou guest iamthebest iforgotmypassword
    iloveyou iloveyouforever iloveyoumom iloveyousomuch iloveyouverymuch
    ihatepasswords ilovemyself ilovepasswords ineedapassword khesht
    kheshtpassword lamborghini letmein letmeinletmein letmeinnow letmeinplease
    letmeinpassword login loveyouforever mailcreated manchesterunited master
    masterpassword monkey mylongpassword mynewpassword mypassword
    mypasswordispassword mypasswordissecret mysecretpassword newpassword
    nopassword nopasswordneeded nothingtoseehere onetwothreefourfive opensesame
    passphrase pass passpass passw passwd passwordispassword password
    passwordadmin passwordforpassword passwordisthis passwordlogin
    passwordmaster passwordpassword passwordpasswordpassword passwords
    passwordsecret passwordtest pleaseletmein princess qazwsx qazwsxedc
    qazwsxedcrfv qazwsxedcrfvtgb qazwsxedcrfvtgbyhnujm qwer qwert qwerty
    qwertyasdfgh qwertyasdfghzxcvbn qwertyqwerty qwertyui qwertyuiop
    qwertyuiopasdf qwertyuiopasdfgh qwertyuiopasdfghjkl
    qwertyuiopasdfghjklzxcvbnm qwertyuiopqwertyuiop qwertyzxcvbn qwertzuiop
    root rootroot secret secretpassword secretsecret superman superpassword
    supersecret supersecretpassword test testing testingtesting testpassword
    testtest thequickbrownfox thisisapassword thisismypassword
    thisisnotapassword thisisnotmypassword thisisthepassword trustnoone
    unknownpassword user username userpassword welcome welcometothejungle
    welcomewelcome whatpassword whatsmypassword whatisthepassword
    wordpasswordword yourpassword yourpasswordhere zxcvbn zxcvbnm
    zxcvbnmasdfghjkl zxcvbnmasdfghjklqwertyuiop
    """.split()  # noqa: SIM905 - as one reads and extends it
)
